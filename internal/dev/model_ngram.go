package dev

import (
	_ "embed"
	"math"
	"math/rand/v2"
	"strings"
)

// corpus is all the model has read.
//
//go:embed corpus.txt
var corpus string

const (
	// The model looks at this many words to choose the next one.
	order = 3
	// Each word it has to look back less counts a continuation down to this share (back-off).
	backOff = 0.15
	// How strongly words from sentences that share words with the prompt pull.
	topicPull = 6.0
	// Words in more than this share of the sentences say nothing about the topic, nor do those a question is put with.
	commonShare   = 0.1
	questionWords = " a an about and are can do does for how i in is it me of on please say tell that the this to us " +
		"what when where who why with would write you your "
)

// statistics is what learning leaves: which words follow which. It is read-only after learn.
type statistics struct {
	words     []string // by number; 0 stands before the first word of a sentence
	numbers   map[string]int
	after     map[history][]follower
	sentences [][]int
	spread    map[string]int // lower-case word → sentences it is in
}

// history is the last words, the latest last. A shorter one has forgotten at its beginning.
type history [order]int

const forgotten = -1

// shorter forgets all but the last n words.
func (h history) shorter(n int) history {
	for i := range order - n {
		h[i] = forgotten
	}
	return h
}

func (h history) then(word int) history {
	copy(h[:], h[1:])
	h[order-1] = word
	return h
}

type follower struct {
	word  int
	count float64
}

// learn reads a text once, sentence by sentence.
func learn(text string) *statistics {
	s := &statistics{words: []string{""}, numbers: map[string]int{}, after: map[history][]follower{}, spread: map[string]int{}}
	var sentence []int
	for _, token := range Tokens(text) {
		sentence = append(sentence, s.number(token))
		if endsSentence(token) {
			s.read(sentence)
			sentence = nil
		}
	}
	return s
}

func endsSentence(token string) bool { return token == "." || token == "!" || token == "?" }

func (s *statistics) number(word string) int {
	n, known := s.numbers[word]
	if !known {
		n = len(s.words)
		s.numbers[word] = n
		s.words = append(s.words, word)
	}
	return n
}

func (s *statistics) read(sentence []int) {
	s.sentences = append(s.sentences, sentence)
	seen := map[string]bool{}
	var last history // nothing but the beginning of a sentence
	for _, word := range sentence {
		for n := 1; n <= order; n++ {
			known := last.shorter(n)
			s.after[known] = add(s.after[known], word)
		}
		last = last.then(word)
		if lower := strings.ToLower(s.words[word]); !seen[lower] {
			seen[lower] = true
			s.spread[lower]++
		}
	}
}

func add(list []follower, word int) []follower {
	for i := range list {
		if list[i].word == word {
			list[i].count++
			return list
		}
	}
	return append(list, follower{word, 1})
}

// rarity weighs a word by how few sentences have it.
func (s *statistics) rarity(lower string) float64 {
	return math.Log(1 + float64(len(s.sentences))/float64(1+s.spread[lower]))
}

// topic says how much each word of the vocabulary has to do with a prompt: 1 nothing, more the more the sentences it stands in share
// of the prompt's rarer words.
func (s *statistics) topic(prompt []string) []float64 {
	asked := map[string]float64{}
	for _, token := range prompt {
		lower := strings.ToLower(token)
		common := float64(s.spread[lower]) > commonShare*float64(len(s.sentences)) || strings.Contains(questionWords, " "+lower+" ")
		if s.spread[lower] > 0 && !common {
			asked[lower] = s.rarity(lower)
		}
	}
	shared, seen := make([]float64, len(s.words)), make([]float64, len(s.words))
	for _, sentence := range s.sentences {
		var sum float64
		for _, word := range sentence {
			sum += asked[strings.ToLower(s.words[word])]
		}
		for _, word := range sentence {
			shared[word] += sum
			seen[word]++
		}
	}
	pull := make([]float64, len(s.words))
	for i := range pull {
		pull[i] = 1 + topicPull*shared[i]/max(1, seen[i])
	}
	return pull
}

// writer makes one text, token by token.
type writer struct {
	stats       *statistics
	random      *rand.Rand
	temperature float64
	pull        []float64
	last        history
	used        map[history]map[int]float64
}

func (s *statistics) newWriter(prompt []string, temperature float64, random *rand.Rand) *writer {
	return &writer{stats: s, random: random, temperature: temperature, pull: s.topic(prompt), used: map[history]map[int]float64{}}
}

// next chooses the next token. After the end of a sentence the next one begins.
func (w *writer) next() string {
	word := w.choose(w.candidates())
	if w.used[w.last] == nil {
		w.used[w.last] = map[int]float64{}
	}
	w.used[w.last][word]++
	w.last = w.last.then(word)
	token := w.stats.words[word]
	if endsSentence(token) {
		w.last = history{}
	}
	return token
}

// candidates weighs what may follow, backing off to what followed fewer of the last words. What this text has already said counts less
// each time, or the likeliest path would run in a circle.
func (w *writer) candidates() []follower {
	var list []follower
	share := 1.0
	for n := order; n > 0; n-- {
		known := w.stats.after[w.last.shorter(n)]
		var sum float64
		for _, f := range known {
			sum += f.count
		}
		for _, f := range known {
			if !contains(list, f.word) {
				list = append(list, follower{f.word, share * f.count / sum})
			}
		}
		share *= backOff
	}
	for i, f := range list {
		again := 1 + w.used[w.last][f.word]
		list[i].count *= w.pull[f.word] / (again * again * again)
	}
	return list
}

func contains(list []follower, word int) bool {
	for _, f := range list {
		if f.word == word {
			return true
		}
	}
	return false
}

// choose draws by weight; at temperature 0 it takes the heaviest, the earlier of equals.
func (w *writer) choose(list []follower) int {
	best := list[0]
	for _, f := range list[1:] {
		if f.count > best.count {
			best = f
		}
	}
	if w.temperature <= 0 {
		return best.word
	}
	var sum float64
	for i := range list {
		// Relative to the best, so that a small temperature does not underflow.
		list[i].count = math.Pow(list[i].count/best.count, 1/w.temperature)
		sum += list[i].count
	}
	point := w.random.Float64() * sum
	for _, f := range list {
		if point -= f.count; point < 0 {
			return f.word
		}
	}
	return best.word
}
