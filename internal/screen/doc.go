// Package screen lays text out for a terminal of 80 columns: tables, lists of
// names and values, wrapped lines, times as people say them. It exists so that
// iapctl and iap-relay show the same thing alike; which characters are fit for a
// terminal is plaintext's business, and colours are the caller's.
package screen
