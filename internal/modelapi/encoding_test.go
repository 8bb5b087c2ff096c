package modelapi

import (
	"bytes"
	"compress/gzip"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func gzipped(t testing.TB, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstandard(t testing.TB, plain []byte) []byte {
	t.Helper()
	z, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	return z.EncodeAll(plain, nil)
}

func TestCompressedBodiesAreForwardedPlain(t *testing.T) {
	const body = `{"model":"m:x","messages":[{"role":"user","content":"hi"}]}`
	for encoding, packed := range map[string][]byte{
		"": []byte(body), "identity": []byte(body), "gzip": gzipped(t, []byte(body)), "GZIP": gzipped(t, []byte(body)),
		"x-gzip": gzipped(t, []byte(body)), "zstd": zstandard(t, []byte(body)),
	} {
		in := post("ollama", "/v1/chat/completions", "")
		in.Body, in.ContentEncoding = packed, encoding
		c, err := Default().Classify(in)
		if err != nil || string(c.Body) != body || c.Model != "m:x" {
			t.Errorf("%q: got %s, %v", encoding, c.Body, err)
		}
		if _, err := Default().Verify(in); (encoding == "") != (err == nil) {
			t.Errorf("%q: the second check says %v", encoding, err)
		}
		checkFixpoint(t, in)
	}
}

func TestCompressedBodiesThatTwoDecodersReadDifferentlyAreRefused(t *testing.T) {
	plain := []byte(`{"model":"m","input":"i"}`)
	secret := gzipped(t, []byte(`{"model":"secret","input":"i"}`))
	for name, try := range map[string]struct {
		encoding, want string
		body           []byte
	}{
		"deflate":           {"deflate", "encoding_unsupported", plain},
		"brotli":            {"br", "encoding_unsupported", plain},
		"two encodings":     {"gzip, zstd", "encoding_unsupported", zstandard(t, gzipped(t, plain))},
		"identity and gzip": {"identity, gzip", "encoding_unsupported", gzipped(t, plain)},
		"gzip that is none": {"gzip", "encoding_invalid", plain},
		"zstd that is none": {"zstd", "encoding_invalid", plain},
		"the other one":     {"zstd", "encoding_invalid", gzipped(t, plain)},
		"two members":       {"gzip", "encoding_invalid", append(gzipped(t, plain), secret...)},
		"something behind":  {"gzip", "encoding_invalid", append(gzipped(t, plain), "\n"...)},
		"cut off":           {"gzip", "encoding_invalid", gzipped(t, plain)[:20]},
		"cut off zstd":      {"zstd", "encoding_invalid", zstandard(t, plain)[:20]},
		"empty":             {"gzip", "encoding_invalid", nil},
		"wrong checksum":    {"gzip", "encoding_invalid", append(gzipped(t, plain)[:len(gzipped(t, plain))-8], make([]byte, 8)...)},
		"compressed twice":  {"gzip", "json_invalid", gzipped(t, gzipped(t, plain))},
		"duplicate inside":  {"gzip", "json_duplicate_name", gzipped(t, []byte(`{"model":"m","MODEL":"x"}`))},
		"unheard plain":     {"", "json_invalid", gzipped(t, plain)},
	} {
		in := post("vllm", "/v1/embeddings", "")
		in.Body, in.ContentEncoding = try.body, try.encoding
		if c, err := Default().Classify(in); code(err) != try.want || c.Body != nil {
			t.Errorf("%s: got %s, %v; want %s", name, c.Body, err, try.want)
		}
	}
}

func TestWhatACompressedBodyUnfoldsToIsBounded(t *testing.T) {
	filled := func(n int) []byte { return []byte(`{"model":"m","input":"` + strings.Repeat("x", n) + `"}`) }
	for name, try := range map[string]struct {
		plain []byte
		want  string
	}{
		"short":            {filled(freeSize - 100), ""},
		"over the ratio":   {filled(freeSize), "body_too_large"},
		"over all":         {filled(MaxBody), "body_too_large"},
		"many empty names": {[]byte(`{"model":"m"` + strings.Repeat(`,"":0`, freeSize/5) + `}`), "body_too_large"},
	} {
		for encoding, pack := range map[string]func(testing.TB, []byte) []byte{"gzip": gzipped, "zstd": zstandard} {
			in := post("vllm", "/v1/embeddings", "")
			in.Body, in.ContentEncoding = pack(t, try.plain), encoding
			if _, err := Default().Classify(in); code(err) != try.want {
				t.Errorf("%s, %s of %d bytes: got %v", name, encoding, len(in.Body), err)
			}
		}
	}
}

// A decoder asked for a window larger than it must have holds no memory for it.
func TestAZstdWindowIsBounded(t *testing.T) {
	in := post("vllm", "/v1/embeddings", "")
	in.ContentEncoding = "zstd"
	// A frame of one empty raw block whose header asks for a window of 2 GiB.
	in.Body = []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00}
	if _, err := Default().Classify(in); code(err) != "body_too_large" {
		t.Errorf("got %v", err)
	}
}
