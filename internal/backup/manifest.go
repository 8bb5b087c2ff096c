package backup

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

const (
	// Schema is that of the manifest.
	Schema = "iap-backup/v1"

	manifestName = "manifest.json"
	// StateName is the state's, below the folder that is unpacked to.
	StateName = "state.db"

	maxManifest = 64 << 20 // bytes
	maxFiles    = 500_000
	maxName     = 1024
)

// Manifest says what a backup holds.
type Manifest struct {
	Schema   string    `json:"schema"`
	Version  string    `json:"version"` // of the relay
	Taken    time.Time `json:"taken"`   // what was decided later is not in it
	Name     string    `json:"name"`    // of the relay
	Instance string    `json:"instance,omitempty"`
	State    string    `json:"state"`           // sqlite, or postgres: then it is not in here
	Audit    bool      `json:"audit"`           // the log is in it
	Files    []File    `json:"files"`           // in their order, without the manifest
	LeftOut  []LeftOut `json:"left_out"`        // what a restore will need from elsewhere
	Bytes    int64     `json:"bytes,omitempty"` // of all files
}

// File is one in the archive.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// LeftOut is what is not in the archive, and why.
type LeftOut struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// folders are where an archive's files lie.
var folders = [...]string{"data", "audit", "config"}

// checkName refuses a name that an archive of ours has not.
func checkName(name string) error {
	if len(name) > maxName || name != path.Clean(name) || strings.ContainsAny(name, "\\\x00:") || path.IsAbs(name) {
		return fmt.Errorf("%q is no name of a backup's file", name)
	}
	if name == StateName || name == manifestName {
		return nil
	}
	folder, rest, found := strings.Cut(name, "/")
	for _, one := range folders {
		if found && folder == one && rest != "" {
			return nil
		}
	}
	return fmt.Errorf("%q is no name of a backup's file", name)
}

// ErrIncomplete: the archive ends before its manifest, or is not what that says.
var ErrIncomplete = errors.New("the backup is not whole")
