package tunnel

import "time"

// Every deadline and size of this package, each with its reason.
const (
	// handshakeTimeout bounds the four messages: a stranger holds a connection no longer than this.
	handshakeTimeout = 10 * time.Second
	// handshakeBytes bounds what one side reads before the peer is known. Tokens with many groups reach 20 KiB.
	handshakeBytes = 64 << 10
	// controlBytes bounds one control message; the largest is an announcement of a few hundred models.
	controlBytes = 64 << 10
	// headerBytes bounds a stream header and a reply.
	headerBytes = 16 << 10
	// upgradeBytes bounds the answers of proxy and relay to the HTTP requests before the tunnel.
	upgradeBytes = 64 << 10

	// headerTimeout is how long the opener of a stream may take to say what it is for.
	headerTimeout = 10 * time.Second
	// writeTimeout is what one write of writeChunk may take. A peer that takes less than 6 KiB/s is no use.
	writeTimeout = 10 * time.Second
	// muxWriteTimeout is yamux's own patience for its turn on the connection. writeTimeout decides, never this: with
	// thousands of writers a turn may honestly take long.
	muxWriteTimeout = 5 * time.Minute
	// closeTimeout bounds Session.Close, goodbye included.
	closeTimeout = time.Second
	// closeLinger is how long a closed stream waits for the other side's FIN before it is reset. A slow reader at the
	// far end needs this to take the last window of an answer.
	closeLinger = 30 * time.Second
	// reasonGrace is how long a dying session waits for its control reader to find the peer's reason.
	reasonGrace = 250 * time.Millisecond

	// frameBytes is the most one data frame of ours carries: a token waits behind no more than this.
	frameBytes = 32 << 10
	// windowMost is the largest receive window, and so the largest frame a peer may send.
	windowMost = 4 << 20
	// windowLeast is what yamux grants every stream to begin with.
	windowLeast = 256 << 10
	// pendingBytes is how much may wait for the connection before writers do. It is small on purpose: what waits here
	// delays every other stream.
	pendingBytes = 128 << 10
	// injectedBytes ends a session whose peer provokes resets and never reads them.
	injectedBytes = 1 << 20
	// writeChunk is what one write hands to TLS, and what writeTimeout is for.
	writeChunk = 64 << 10
	// readBytes is the read buffer of a session: two TLS records.
	readBytes = 32 << 10
	// lazyFlush is how long a frame that carries neither data nor an end may wait for company: a SYN goes out with
	// its header, an ACK with its answer.
	lazyFlush = time.Millisecond

	// crowdGap is how soon after a write the next frame comes if it had waited for it; crowdFrames is how many are left
	// to the flusher then. Both were measured: 64 streams at once lose nothing, one stream alone gains a quarter.
	crowdGap    = 4 * time.Microsecond
	crowdFrames = 64

	// junkBurst and junkPerSecond bound frames that carry nothing: pings and empty updates.
	junkBurst     = 200
	junkPerSecond = 20
	// controlBurst and controlPerSecond bound control messages.
	controlBurst     = 100
	controlPerSecond = 20
	// controlQueue is how many control messages may wait to be written.
	controlQueue = 64
	// controlWriteTimeout is how long a peer may leave its control stream unread.
	controlWriteTimeout = 5 * time.Second
	// callbackTimeout bounds the relay's judgement of a refresh or a new key.
	callbackTimeout = 10 * time.Second
	// rotateTimeout is what an agent may take to make a key, write it and have the relay take it.
	rotateTimeout = 20 * time.Second

	// activeSilence is after how much silence a session in use is pinged, idleSilence an idle one. Any byte counts.
	activeSilence = 5 * time.Second
	idleSilence   = 60 * time.Second
	// pingPatience is how long after the ping a silent peer is dead: 15 s for a session in use.
	pingPatience = 10 * time.Second

	// streamsInteractive and streamsBulk are the default caps of a peer's open streams. A bulk stream may make us hold
	// 4 MiB.
	streamsInteractive = 1024
	streamsBulk        = 128
	// opensLeast is the least number of opens that may await their acknowledgement at once.
	opensLeast = 256

	// replayWindow is how far behind the newest a sequence number may be; as wide as streams can be concurrent.
	replayWindow = 16384
)
