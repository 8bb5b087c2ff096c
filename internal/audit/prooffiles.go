package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"iap/internal/audit/checkpoint"
	"iap/internal/audit/tree"
	"iap/internal/relaykey"
)

// Files beside the segments; the package documentation says what is in them.
const (
	HashSuffix       = ".hashes"      // behind a segment's name
	CheckpointSuffix = ".checkpoints" // behind a segment's name
	KeysFile         = "relay-keys.json"
	ExpiredFile      = "expired.json"

	wrongSuffix = ".wrong" // a hash file that was not its segment's
	maxSmall    = 4 << 20  // bytes of a keys file: links of a century
)

// Segment is a file of the log.
type Segment struct {
	Name  string
	First uint64 // number of its first record
}

// Segments lists the log's files, oldest first.
func Segments(dir string) ([]Segment, error) {
	names, err := listSegments(dir)
	all := make([]Segment, len(names))
	for i, s := range names {
		all[i] = Segment{s.name, s.first}
	}
	return all, err
}

// Parse reads one line. Unknown fields are passed over, duplicate names and other versions are refused.
func Parse(line []byte) (Event, error) { return parse(line) }

// EncodeCheckpoint is a line of a checkpoint file.
func EncodeCheckpoint(note []byte) []byte {
	line, err := json.Marshal(map[string]string{"checkpoint": string(note)})
	if err != nil {
		return nil // a string is always encoded
	}
	return append(line, '\n')
}

// DecodeCheckpoint reads a line, with its newline, exactly as EncodeCheckpoint writes it.
func DecodeCheckpoint(line []byte) (note []byte, err error) {
	var entry struct {
		Checkpoint string `json:"checkpoint"`
	}
	if err := json.Unmarshal(line, &entry); err != nil || !bytes.Equal(EncodeCheckpoint([]byte(entry.Checkpoint)), line) {
		return nil, checkpoint.ErrMalformed
	}
	return []byte(entry.Checkpoint), nil
}

// Expired says which records retention has taken, and keeps what of their tree the rest needs.
type Expired struct {
	Subtrees []tree.Hash `json:"subtrees"`
	Head     string      `json:"head"` // the signed checkpoint of the tree of all that is gone

	Through uint64 `json:"-"` // number of the last record that is gone, as the head says
}

// ReadExpired reads what retention left; ok if there is such a file. The head's signature is for the caller to verify.
func ReadExpired(dir string) (e Expired, before *tree.Range, ok bool, err error) {
	data, err := readSmall(filepath.Join(dir, ExpiredFile))
	if errors.Is(err, fs.ErrNotExist) {
		return e, new(tree.Range), false, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &e)
	}
	if err == nil && !bytes.Equal(e.encode(), data) {
		err = checkpoint.ErrMalformed
	}
	var head checkpoint.Checkpoint
	if err == nil {
		head, err = checkpoint.Parse([]byte(e.Head))
	}
	if err == nil && head.Expired == 0 {
		err = checkpoint.ErrMalformed
	}
	if err == nil {
		before, err = tree.NewRange(head.Size, e.Subtrees)
	}
	if err == nil && before.Root() != head.Root {
		err = errors.New("the hashes are not those of the head")
	}
	if err != nil {
		return e, nil, true, fmt.Errorf("read %s: %w", filepath.Join(dir, ExpiredFile), err)
	}
	e.Through = head.Expired
	return e, before, true, nil
}

func (e Expired) encode() []byte {
	data, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return nil // a time beyond year 9999
	}
	return append(data, '\n')
}

// ReadKeys reads the keys that stand beside a log; ok if there are such.
func ReadKeys(dir string) (f checkpoint.KeyFile, ok bool, err error) {
	data, err := readSmall(filepath.Join(dir, KeysFile))
	if errors.Is(err, fs.ErrNotExist) {
		return f, false, nil
	}
	if err == nil {
		f, err = checkpoint.ParseKeyFile(data)
	}
	if err != nil {
		return f, true, fmt.Errorf("%s: %w", filepath.Join(dir, KeysFile), err)
	}
	return f, true, nil
}

// keepKeys writes the keys down beside the log, so that it can be verified without the relay.
func (p *prover) keepKeys(key []byte, encoded [][]byte) error {
	var chain []relaykey.Link
	for _, one := range encoded {
		if link, err := relaykey.Parse(one); err == nil {
			chain = append(chain, link)
		}
	}
	next := checkpoint.KeyFile{Key: p.known.Key, Chain: append([]relaykey.Link(nil), p.known.Chain...)}
	if !next.Add(key, chain) {
		return nil
	}
	if err := writeAtomic(filepath.Join(p.l.dir, KeysFile), next.Encode()); err != nil {
		return fmt.Errorf("write the log's keys: %w", err)
	}
	p.known = next
	return nil
}

func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxSmall {
		return nil, errors.New("too long")
	}
	return os.ReadFile(path)
}

// WriteFile puts a file in place of another, on the disk when it returns.
func WriteFile(path string, data []byte) error { return writeAtomic(path, data) }

// writeAtomic puts a file in place of another, on the disk when it returns.
func writeAtomic(path string, data []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(next, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(next))
	}
	return syncDir(filepath.Dir(path))
}
