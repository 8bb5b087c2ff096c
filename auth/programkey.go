package auth

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
)

// ProgramKeyPrefix begins every key for programs, so that scanners for secrets
// know one when they see it.
const ProgramKeyPrefix = "iapk_"

// ProgramKey is a key for a program that has only a field for an API key. Its text
// is
//
//	iapk_IIIIIIII_SSSS…SSSSCCCCCCC
//
// where I names the key, S is the secret of 256 random bits and C a checksum of all
// that stands before it, by which a typo is told from a key that was revoked. All of
// it is lower-case base32, one word to a double click.
type ProgramKey struct {
	ID     string // names the key and is no secret
	Secret [32]byte
}

const (
	programKeyID    = 5                       // bytes: names, which the relay keeps apart
	programKeyIDLen = 8                       // characters of it
	programKeyLen   = len(ProgramKeyPrefix) + // the whole text
		programKeyIDLen + 1 + programSecretLen + programSumLen
	programSecretLen = 52
	programSumLen    = 7
)

var errProgramKey = errors.New("read key: damaged; copy all of it")

// programKeyText is strict where it is compared: a key has one spelling.
func programKeyText() *base32.Encoding {
	return base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
}

// NewProgramKey makes a key.
func NewProgramKey() ProgramKey {
	var k ProgramKey
	var id [programKeyID]byte
	_, _ = rand.Read(id[:]) // never fails
	_, _ = rand.Read(k.Secret[:])
	k.ID = programKeyText().EncodeToString(id[:])
	return k
}

// Text is the key as its owner pastes it.
func (k ProgramKey) Text() string {
	text := ProgramKeyPrefix + k.ID + "_" + programKeyText().EncodeToString(k.Secret[:])
	sum := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(text)))
	return text + programKeyText().EncodeToString(sum)
}

// String hides the secret: keys end up in logs by way of %v.
func (k ProgramKey) String() string { return ProgramKeyPrefix + k.ID + "_…" }

// Hash is what the relay keeps. One round of SHA-256 is enough: nobody guesses 256
// random bits.
func (k ProgramKey) Hash() [32]byte { return sha256.Sum256(k.Secret[:]) }

// IsProgramKey says whether text means to be a key for programs.
func IsProgramKey(text string) bool { return strings.HasPrefix(text, ProgramKeyPrefix) }

// ParseProgramKey reads what Text wrote and nothing else. Its errors never quote the
// key.
func ParseProgramKey(text string) (ProgramKey, error) {
	var k ProgramKey
	if len(text) != programKeyLen || !IsProgramKey(text) {
		return k, errProgramKey
	}
	rest := text[len(ProgramKeyPrefix):]
	id, secret := rest[:programKeyIDLen], rest[programKeyIDLen+1:][:programSecretLen]
	if raw, err := programKeyText().DecodeString(id); err != nil || len(raw) != programKeyID {
		return k, errProgramKey
	}
	raw, err := programKeyText().DecodeString(secret)
	if err != nil || len(raw) != len(k.Secret) {
		return k, errProgramKey
	}
	k.ID, k.Secret = id, [32]byte(raw)
	if k.Text() != text {
		return ProgramKey{}, errProgramKey
	}
	return k, nil
}
