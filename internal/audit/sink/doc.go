// Package sink carries the records of an audit log to other systems: a receiver of webhooks, an OpenTelemetry collector, a
// syslog server. It exists so that a copy of the log is where whoever is root on the relay is not.
//
// A sink is a follower of the log's files. It shares nothing with the writer but the folder, so however slow, hanging or
// refusing its receiver is, no record waits for it, nor does another sink: the log itself is the spool, bounded by its
// retention.
//
// # What is promised
//
// Records go out in their order, as they stand in the file, at least once. Before a batch is sent the sink writes down
// which records it holds, and after the receiver has confirmed it that they are done: so a relay that is killed sends the
// same batch again, with the same id, and loses nothing. What retention took before it was sent is lost: that is counted,
// logged, and recorded once for each gap ([ReasonGap]).
//
// A receiver that is away, slow or refuses is asked again, in growing pauses, for as long as the relay runs. Only a
// record that it calls too large by itself (413), and what it says it has rejected while it takes the rest, is passed over,
// and counted as lost.
//
// # Positions
//
// One file for each sink, <name>.json, replaced atomically and synced:
//
//	sent     number of the last record that the receiver confirmed
//	hash     SHA-256 of that line, in hex: a log that was rolled back is found out, and sent again from its last segment
//	sending  number of the last record of the batch that is being sent
//	lost     records that were never sent
//
// # Rooms
//
//	sink.go      Start, Close and what is told of each sink; config.go: what may be configured
//	follower.go  one sink: batches, pauses, gaps
//	reader.go    records from the files; position.go: how far they are sent
//	http.go      posting a batch, and what the answers mean; webhook.go: signed batches of lines
//	otlp.go      exports to a collector; otlprecord.go: a line in its mapping to JSON
//	syslog.go    connections and packets; syslogmessage.go: a line as a message of RFC 5424
//	severity.go  how loud a record is
package sink
