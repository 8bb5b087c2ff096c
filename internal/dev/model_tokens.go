package dev

import (
	"encoding/binary"
	"hash/fnv"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Tokens cuts text into the demo model's tokens: words (letters, digits, apostrophes and hyphens inside) and single other marks. White space
// separates and is no token. Usage numbers count these.
func Tokens(text string) []string {
	var tokens []string
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case unicode.IsSpace(r):
			i += size
		case wordRune(r):
			end := wordEnd(text, i)
			tokens = append(tokens, text[i:end])
			i = end
		default:
			tokens = append(tokens, text[i:i+size])
			i += size
		}
	}
	return tokens
}

func wordRune(r rune) bool { return unicode.IsLetter(r) || unicode.IsDigit(r) }

func wordEnd(text string, from int) int {
	for i := from; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		if !wordRune(r) {
			following, _ := utf8.DecodeRuneInString(text[i+size:])
			if (r != '\'' && r != '-') || i+size >= len(text) || !wordRune(following) {
				return i
			}
		}
		i += size
	}
	return len(text)
}

// spaced is a token as it stands after the one before it; Tokens of the joined text are the tokens again.
func spaced(before, token string) string {
	if before == "" || strings.Contains(".,;:!?)", token) || before == "(" {
		return token
	}
	return " " + token
}

func hashWords(words []string) uint64 {
	h := fnv.New64a()
	for _, w := range words {
		h.Write([]byte(w))
		h.Write([]byte{0})
	}
	return h.Sum64()
}

// Embeddings are long enough that different words rarely point the same way, and short enough to read.
const (
	defaultDimensions = 64
	maxDimensions     = 4096
)

// embed places a text by its words: each word has a fixed pseudo-random direction, rare words pull harder, the sum has length
// one. Texts that share words are near each other; the same text is always at the same place.
func (s *statistics) embed(text string, dimensions int) []float32 {
	sum := make([]float64, dimensions)
	for _, token := range Tokens(strings.ToLower(text)) {
		weight := s.rarity(token)
		state := hashWords([]string{token})
		for i := range sum {
			state = scramble(state + uint64(i))
			sum[i] += weight * (float64(int64(state)) / math.MaxInt64)
		}
	}
	var length float64
	for _, x := range sum {
		length += x * x
	}
	out := make([]float32, dimensions)
	if length = math.Sqrt(length); length == 0 {
		return out
	}
	for i, x := range sum {
		out[i] = float32(x / length)
	}
	return out
}

// scramble is the finaliser of splitmix64.
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// float32Bytes is how OpenAI's base64 encoding lays an embedding out.
func float32Bytes(vector []float32) []byte {
	out := make([]byte, 0, 4*len(vector))
	for _, x := range vector {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(x))
	}
	return out
}
