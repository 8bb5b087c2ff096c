// Package tree is the Merkle tree over an audit log's lines, and the hashes of it that are kept beside them. It exists so
// that one hash stands for all lines up to a record, and that a proof about years of them reads a few hundred bytes.
//
// The tree is that of RFC 6962, as golang.org/x/mod/sumdb/tlog computes it. Its leaves are the log's lines in their
// order, over all segments, without the newline that ends them:
//
//	leaf = SHA-256(0x00 || line)          node = SHA-256(0x01 || left || right)
//
// # A hash file
//
// Beside each segment stands <segment>.hashes: a head of 32 bytes ("iap-audit-hash-1", the number of lines before the
// segment as 8 bytes, big endian, 8 zero bytes), then for each line its leaf and behind it every complete subtree that
// ends with it, from the smallest to the largest. The file holds nothing that the segment does not: it can be made anew.
//
// # Lines that have expired
//
// Of lines that are gone the largest complete subtrees are enough, a Range: with it and the hash files of what is left,
// every record that is left can be proven, and that every tree since then extends every other.
package tree
