// Package backup writes what a relay must not lose into one file, while the relay runs,
// and puts it back.
//
// It exists so that a backup is of one moment and a restore is safe: of a database that is
// written to, of keys that are being changed and of a log that grows, a plain copy is none.
//
// # Rooms
//
//	manifest.go   what stands in an archive, and which names may
//	write.go      Write: the parts, in the order that makes them fit together
//	collect.go    what is read of a data folder that is in use
//	read.go       Read: an archive checked, and unpacked where it is asked for
//	restore.go    Restore: a data folder made of one, whole or not at all
//
// # The archive
//
// A tar, compressed with gzip and as a rule sealed with age (package sealed):
//
//	data/…         the data folder without what only a running relay needs
//	state.db       the state, as SQLite itself copied it; not if it is in PostgreSQL
//	audit/…        the log: whole files, the last one up to its last whole line
//	config/…       relay.yaml and the policy
//	manifest.json  the last file: what stands before it, with sizes and SHA-256
//
// The keys are read until two readings agree, the state before the log: whatever the state
// tells of is in the log. Checkpoints are read before the lines they sign, hashes of the last
// file are left out: they are made anew.
//
// # Trust
//
// An archive is believed to be whole if its last file names every other one as it is, and to
// come from a relay only as far as whoever keeps it is trusted: it is not signed. What is
// unpacked are plain files below one folder; links, devices, other paths, a name that stands
// twice or is not named by the manifest make it no backup.
package backup
