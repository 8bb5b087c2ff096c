package sink

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"iap/internal/audit"
)

const maxPosition = 4 << 10 // bytes of a position's file; a real one has some 150

// position says how far a sink has come.
type position struct {
	Sent    uint64 `json:"sent"`
	Hash    string `json:"hash,omitempty"` // of the line of that number; empty if it was never read
	Sending uint64 `json:"sending,omitempty"`
	Lost    uint64 `json:"lost,omitempty"`
}

// loadPosition reads a position; ok if there is one. A file that cannot be read is an error: to begin anew would lose or
// double years of records, and nobody would know.
func loadPosition(path string) (p position, ok bool, err error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return p, false, nil
	}
	var data []byte
	switch {
	case err == nil && info.Size() > maxPosition:
		err = errors.New("too long")
	case err == nil:
		data, err = os.ReadFile(path)
	}
	if err == nil {
		err = json.Unmarshal(data, &p)
	}
	if err != nil {
		return p, true, fmt.Errorf("the position of an audit sink cannot be read; remove %s to begin as a new sink does: %w", path, err)
	}
	return p, true, nil
}

func (p position) save(path string) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return audit.WriteFile(path, append(data, '\n'))
}

func hashOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}
