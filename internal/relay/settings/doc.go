// Package settings is relay.yaml: its fields, their defaults, what is wrong with
// a file, and a first one for whoever has none. It exists so that the relay
// finds everything already valid, and so that a file can be checked where no
// relay runs.
package settings
