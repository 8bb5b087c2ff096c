//go:build real

package e2e

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
)

// Sizes of the tiny model: enough for a server to take it for a language model.
const (
	tinyContext = 8192
	tinyWidth   = 64
	tinyHeads   = 4
	tinyInner   = 128
	tinyLayers  = 2
)

// Kinds of values in a GGUF file.
const (
	ggufUint32  = 4
	ggufInt32   = 5
	ggufFloat32 = 6
	ggufBool    = 7
	ggufString  = 8
	ggufArray   = 9

	ggufAlignment = 32
)

// Kinds of tokens.
const (
	tokenNormal  = 1
	tokenUnknown = 2
	tokenControl = 3
	tokenByte    = 6
)

// gguf is a model file that is being written: head, values and tensor list, then the tensors' numbers.
type gguf struct {
	values, list, data bytes.Buffer
	countValues        uint64
	countTensors       uint64
	random             *rand.Rand
}

// tinyModel is a model file of the llama architecture with random weights and a vocabulary of syllables. Whatever it is
// asked it answers with nonsense, for as long as it may.
func tinyModel(seed uint64) []byte {
	g := &gguf{random: rand.New(rand.NewPCG(seed, seed))}
	g.text("general.architecture", "llama")
	g.text("general.name", "tiny")
	g.number("general.file_type", 0)
	g.number("llama.context_length", tinyContext)
	g.number("llama.embedding_length", tinyWidth)
	g.number("llama.block_count", tinyLayers)
	g.number("llama.feed_forward_length", tinyInner)
	g.number("llama.attention.head_count", tinyHeads)
	g.number("llama.attention.head_count_kv", tinyHeads)
	g.number("llama.rope.dimension_count", tinyWidth/tinyHeads)
	g.value("llama.attention.layer_norm_rms_epsilon", ggufFloat32, float32(1e-5))
	tokens := g.vocabulary()

	g.tensor("token_embd.weight", g.weights(tinyWidth*len(tokens)), tinyWidth, len(tokens))
	for layer := range tinyLayers {
		g.layer(fmt.Sprintf("blk.%d.", layer))
	}
	g.tensor("output_norm.weight", ones(tinyWidth), tinyWidth)
	g.tensor("output.weight", g.outputWeights(tokens), tinyWidth, len(tokens))
	return g.file()
}

func (g *gguf) layer(prefix string) {
	g.tensor(prefix+"attn_norm.weight", ones(tinyWidth), tinyWidth)
	for _, name := range []string{"attn_q", "attn_k", "attn_v", "attn_output"} {
		g.tensor(prefix+name+".weight", g.weights(tinyWidth*tinyWidth), tinyWidth, tinyWidth)
	}
	g.tensor(prefix+"ffn_norm.weight", ones(tinyWidth), tinyWidth)
	g.tensor(prefix+"ffn_gate.weight", g.weights(tinyWidth*tinyInner), tinyWidth, tinyInner)
	g.tensor(prefix+"ffn_up.weight", g.weights(tinyWidth*tinyInner), tinyWidth, tinyInner)
	g.tensor(prefix+"ffn_down.weight", g.weights(tinyInner*tinyWidth), tinyInner, tinyWidth)
}

// vocabulary writes the tokens, by SentencePiece's rules: three with a meaning, one for each byte, then text.
func (g *gguf) vocabulary() (kinds []int32) {
	tokens := []string{"<unk>", "<s>", "</s>"}
	kinds = []int32{tokenUnknown, tokenControl, tokenControl}
	for b := range 256 {
		tokens, kinds = append(tokens, fmt.Sprintf("<0x%02X>", b)), append(kinds, tokenByte)
	}
	text := []string{"▁"}
	for _, consonant := range "bdfklmnrst" {
		for _, vowel := range "aeiou" {
			text = append(text, string([]rune{consonant, vowel}), string([]rune{'▁', consonant, vowel}))
		}
	}
	for letter := 'a'; letter <= 'z'; letter++ {
		text = append(text, string(letter))
	}
	scores := make([]float32, len(tokens), len(tokens)+len(text))
	for i, t := range text {
		tokens, kinds, scores = append(tokens, t), append(kinds, tokenNormal), append(scores, -float32(i))
	}
	g.text("tokenizer.ggml.model", "llama")
	g.text("tokenizer.ggml.pre", "default")
	g.begin("tokenizer.ggml.tokens", ggufArray)
	put(&g.values, uint32(ggufString), uint64(len(tokens)))
	for _, t := range tokens {
		putText(&g.values, t)
	}
	g.value("tokenizer.ggml.scores", ggufArray, uint32(ggufFloat32), uint64(len(scores)), scores)
	g.value("tokenizer.ggml.token_type", ggufArray, uint32(ggufInt32), uint64(len(kinds)), kinds)
	g.number("tokenizer.ggml.unknown_token_id", 0)
	g.number("tokenizer.ggml.bos_token_id", 1)
	g.number("tokenizer.ggml.eos_token_id", 2)
	g.value("tokenizer.ggml.add_bos_token", ggufBool, true)
	return kinds
}

// outputWeights prefers text: a byte or the end of the answer is never the likeliest next token.
func (g *gguf) outputWeights(kinds []int32) []float32 {
	w := make([]float32, 0, tinyWidth*len(kinds))
	for _, k := range kinds {
		row := make([]float32, tinyWidth)
		if k == tokenNormal {
			row = g.weights(tinyWidth)
		}
		w = append(w, row...)
	}
	return w
}

func (g *gguf) weights(n int) []float32 {
	w := make([]float32, n)
	for i := range w {
		w[i] = float32(g.random.NormFloat64())
	}
	return w
}

func ones(n int) []float32 {
	w := make([]float32, n)
	for i := range w {
		w[i] = 1
	}
	return w
}

func (g *gguf) begin(name string, kind uint32) {
	putText(&g.values, name)
	put(&g.values, kind)
	g.countValues++
}

func (g *gguf) value(name string, kind uint32, parts ...any) {
	g.begin(name, kind)
	put(&g.values, parts...)
}

func (g *gguf) number(name string, n uint32) { g.value(name, ggufUint32, n) }

func (g *gguf) text(name, value string) {
	g.begin(name, ggufString)
	putText(&g.values, value)
}

func (g *gguf) tensor(name string, numbers []float32, shape ...int) {
	pad(&g.data)
	putText(&g.list, name)
	put(&g.list, uint32(len(shape)))
	for _, n := range shape {
		put(&g.list, uint64(n))
	}
	put(&g.list, uint32(0), uint64(g.data.Len())) // 32-bit floats, and where they stand
	put(&g.data, numbers)
	g.countTensors++
}

func (g *gguf) file() []byte {
	var out bytes.Buffer
	out.WriteString("GGUF")
	put(&out, uint32(3), g.countTensors, g.countValues)
	out.Write(g.values.Bytes())
	out.Write(g.list.Bytes())
	pad(&out)
	pad(&g.data)
	out.Write(g.data.Bytes())
	return out.Bytes()
}

func pad(b *bytes.Buffer) { b.Write(make([]byte, -b.Len()&(ggufAlignment-1))) }

func putText(b *bytes.Buffer, text string) {
	put(b, uint64(len(text)))
	b.WriteString(text)
}

// put writes values of fixed size, little end first.
func put(b *bytes.Buffer, values ...any) {
	for _, v := range values {
		_ = binary.Write(b, binary.LittleEndian, v) // a buffer takes all, and all values here have a size
	}
}
