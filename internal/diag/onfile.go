package diag

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"iap/internal/plaintext"
)

const (
	maxSecretFile = 64 << 10 // longer ones hold no key of ours
	maxConfigFile = 1 << 20
	maxListed     = 200 // files of one folder
)

// KnowFile tells the redactor what a file holds that nobody may see: as a whole, line by line, and the key in it. One that
// cannot be read cannot have been copied from here either.
func (r *Redactor) KnowFile(path string) {
	data, err := readUpTo(path, maxSecretFile)
	if err != nil {
		return
	}
	r.Know(strings.TrimSpace(string(data)))
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "-----") {
			r.Know(line)
		}
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return
	}
	r.Know(string(block.Bytes))
	if parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
		if key, ok := parsed.(ed25519.PrivateKey); ok {
			r.Know(string(key), string(key.Seed()))
		}
	}
}

// AddConfig puts a configuration file in, line by line as it stands but for its comments: what was only tried there, a
// password say, has no name by which it would be recognised.
func (b *Bundle) AddConfig(name, what, path string) {
	data, err := readUpTo(path, maxConfigFile)
	if err != nil {
		b.Add(name, what, []byte(plaintext.Clean(err.Error())+"\n"))
		return
	}
	var kept bytes.Buffer
	for line := range strings.Lines(string(data)) {
		kept.WriteString(strings.TrimRight(withoutComment(strings.TrimRight(line, "\r\n")), " \t") + "\n")
	}
	b.Add(name, what, kept.Bytes())
}

// withoutComment cuts a line where a comment could begin, in quotes too: rather too much than too little.
func withoutComment(line string) string {
	for i := range len(line) {
		if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
			return line[:i] + "# …"
		}
	}
	return line
}

// AddFolder puts in which files a folder has, with mode, size and age: never what is in them.
func (b *Bundle) AddFolder(name, what, dir string) {
	entries, err := os.ReadDir(dir)
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s\n", plaintext.Clean(dir))
	if err != nil {
		fmt.Fprintf(&text, "%s\n", plaintext.Clean(err.Error()))
	}
	for i, entry := range entries {
		if i == maxListed {
			fmt.Fprintf(&text, "… and %d more\n", len(entries)-i)
			break
		}
		info, err := entry.Info()
		if err != nil {
			continue // it is gone meanwhile
		}
		fmt.Fprintf(&text, "%s %12d %s %s\n", info.Mode(), info.Size(), info.ModTime().UTC().Format(time.RFC3339), plaintext.Clean(filepath.Base(entry.Name())))
	}
	b.Add(name, what, text.Bytes())
}

// AddJSON puts a document in.
func (b *Bundle) AddJSON(name, what string, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		data = []byte(err.Error())
	}
	b.Add(name, what, append(data, '\n'))
}

func readUpTo(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", path)
	}
	return io.ReadAll(io.LimitReader(f, most))
}
