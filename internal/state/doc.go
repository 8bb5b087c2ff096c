// Package state keeps what must outlive a relay's process or be shared by several relays: agents and their keys, join
// tokens, bindings of identity tokens to session keys, revocations and the counters of limits.
//
// It exists so that the rest of the relay needs to know only one small contract, [Store]: read an item, replace it if it
// is still the one that was read (several at once, in one commit), delete it, list by prefix, and hear of changes.
// Whoever can offer these keeps every promise that is built on them ("this join token is spent once", "the first key that
// presents a token owns it"), so an implementation is judged by the suite in statetest and by nothing else.
//
// # URLs
//
// [Open] chooses the implementation by URL:
//
//	sqlite:/var/lib/iap-relay/state.db   one relay: a file, nothing to run beside it
//	sqlite::memory:                      forgotten on Close; for tests and the development relay
//	postgres://iap@db.example/iap        several relays: a PostgreSQL database (13 or newer) of their own
//
// # Keys and versions
//
// Keys are paths by convention ("agent/phi3", "join/01J…", "revoked/corp/8a7f3c"): valid UTF-8 without control characters,
// at most [MaxKey] bytes, ordered by their bytes. Values are opaque, at most [MaxValue] bytes.
//
// Each write, deletions included, takes the next number of one counter of the whole store as its version. A version is
// never given twice, so an item that was deleted and made again cannot be mistaken for its predecessor.
//
// # The file
//
// The SQLite file is made with mode 0600 in a directory of mode 0700, in WAL mode, and is used by one process at a time
// (a lock file beside it says so). Every commit is synced to the disk before it is acknowledged (synchronous=FULL): what
// is kept here are revocations and spent join tokens, and one that a power cut takes back is a hole; writes are rare
// enough (logins, enrolments, blocks of leased budget) that a sync for each does not show. Tables:
//
//	meta     name TEXT PRIMARY KEY, value INTEGER     "schema": version of this layout; "version": last version given
//	items    key TEXT PRIMARY KEY, value BLOB, version INTEGER, expires INTEGER (Unix nanoseconds, 0 never)
//
// [Snapshot] copies it as it is at one moment, while a relay uses it.
//
// A file that is damaged, of another program or of a newer layout is refused and left byte for byte as it was: a relay
// that went on with an empty state would have forgotten its revocations.
//
// # The database
//
// A PostgreSQL URL is what libpq takes (https://www.postgresql.org/docs/current/libpq-connect.html): several hosts, sslmode,
// sslrootcert, passfile, connect_timeout; pool_max_conns beside them (5). The password is best kept out of it, in the file
// that passfile or PGPASSFILE names. Where nothing is said of sslmode, a server on another machine must prove its name
// (verify-full); of several hosts, the one that takes writes is used. Connections are direct or pooled by session: LISTEN
// has no meaning behind a pooler by transaction.
//
// The relay makes schema "iap" on first use, under an advisory lock (postgres.sql says what is in it). It writes by one
// function, iap.write, that first takes the one row with the counter of versions and holds it until its commit: versions
// are given in the order of the commits, at the price that commits of all relays follow one another. A store therefore joins
// what its callers want written while a commit is under way into the next one. Each batch has a number under which the
// database remembers its outcome for some minutes: a commit whose answer was lost is asked for again, and done once.
//
// Watchers are told of a store's own writes by the store, of others' by a table of changes that is read in the order of
// versions, on NOTIFY or after two seconds of silence. After a lost connection nothing is missed as long as the table
// reaches back (10 minutes); beyond that watchers are told to list again.
//
// A store that has heard of no change for fifteen seconds, not even that there is none, is away, though it may still be read:
// what was revoked at another relay meanwhile is not known.
//
// Expiry is by the relay's clock, as tokens and sessions are: the same clock that finds a token expired finds its binding
// gone. What one relay holds for expired another may still need, so nothing is deleted for an hour. A clock more than five
// seconds from the database's is warned of.
//
// A database that is behind what a relay has seen of it (a failover that lost commits, a restored backup) would give
// versions twice and has forgotten revocations: that relay writes nothing more and hears nothing until it is started anew.
package state
