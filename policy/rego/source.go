package rego

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"iap/policy"
)

// Bounds of what is read from disk, against the wrong file in the right place.
const (
	maxGrantsBytes = 4 << 20 // the parser's own bound
	maxModuleBytes = 1 << 20
	maxModules     = 256
	revisionLength = 12 // hexadecimal digits: enough to tell two policies apart, short enough to read aloud
)

const (
	moduleSuffix = ".rego"
	testSuffix   = "_test.rego"
)

// source is everything that a policy is made of, as read from disk.
type source struct {
	grantsFile string
	grants     []byte
	modules    []moduleSource // sorted by name
	issuers    []string
}

// Source is a policy as it was read: its files, the grants first. Do not change it.
type Source struct {
	Revision string
	Loaded   time.Time
	Grants   *policy.Grants
	Files    []SourceFile
}

// SourceFile is one of them.
type SourceFile struct {
	Name string
	Text []byte
}

// shown is the source for whoever asks what is in place.
func (s source) shown() Source {
	all := Source{Revision: s.revision(), Files: []SourceFile{{s.grantsFile, s.grants}}}
	for _, m := range s.modules {
		all.Files = append(all.Files, SourceFile{m.name, m.text})
	}
	return all
}

type moduleSource struct {
	name string
	text []byte
}

// readSource reads the grants file and the modules. Test modules are read only
// if asked for: a running policy does not depend on them.
func readSource(cfg Config, withTests bool) (source, error) {
	src := source{grantsFile: cfg.GrantsFile, issuers: cfg.Issuers}
	if cfg.GrantsFile == "" {
		return source{}, errors.New("read grants: no grants file is configured")
	}
	var err error
	if src.grants, err = readBounded(cfg.GrantsFile, maxGrantsBytes); err != nil {
		return source{}, fmt.Errorf("read grants: %w", err)
	}
	var files []string
	for _, path := range cfg.Modules {
		found, err := moduleFiles(path, withTests)
		if err != nil {
			return source{}, fmt.Errorf("read policy modules: %w", err)
		}
		files = append(files, found...)
	}
	slices.Sort(files)
	files = slices.Compact(files)
	if len(files) > maxModules {
		return source{}, fmt.Errorf("read policy modules: %d files are more than %d", len(files), maxModules)
	}
	for _, file := range files {
		text, err := readBounded(file, maxModuleBytes)
		if err != nil {
			return source{}, fmt.Errorf("read policy module: %w", err)
		}
		src.modules = append(src.modules, moduleSource{name: file, text: text})
	}
	return src, nil
}

// moduleFiles expands a directory into the .rego files directly in it. Hidden
// entries are skipped: mounted configuration keeps its generations in them.
func moduleFiles(path string, withTests bool) ([]string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		if strings.HasSuffix(path, testSuffix) && !withTests {
			return nil, nil
		}
		return []string{filepath.Clean(path)}, nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	var files []string
	modules := 0
	for _, entry := range entries {
		name := entry.Name()
		if strings.HasPrefix(name, ".") || !strings.HasSuffix(name, moduleSuffix) {
			continue
		}
		isTest := strings.HasSuffix(name, testSuffix)
		if !isTest {
			modules++
		}
		if !isTest || withTests {
			files = append(files, filepath.Join(path, name))
		}
	}
	if modules == 0 {
		return nil, fmt.Errorf("directory %s holds no %s file", path, moduleSuffix)
	}
	return files, nil
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) (data []byte, err error) {
	info, err := os.Stat(path) // before opening: to open a pipe would wait for its writer
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

// revision is a short hash of everything that decides: grants, modules, the
// built-in policy and the aliases of the issuers. Where the files lie does not count.
func (s source) revision() string {
	e := encoder(nil)
	e.text(builtinPolicy)
	e.text(entryPoint)
	e.list(s.issuers)
	e.text(string(s.grants))
	e.count(len(s.modules))
	for _, m := range s.modules {
		e.text(filepath.Base(m.name))
		e.text(string(m.text))
	}
	sum := sha256.Sum256(e)
	return hex.EncodeToString(sum[:])[:revisionLength]
}
