package modelapi

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// What a compressed body may unfold to. Text of a long conversation is a tenth of its size when compressed, a body made
// to fill memory less than a thousandth.
const (
	maxRatio  = 64
	freeSize  = 1 << 20 // up to here the ratio does not count: short bodies repeat themselves
	maxWindow = 8 << 20 // what a zstd decoder must support, by RFC 8878, and may be made to hold
)

// MaxDecoded is the most that a compressed body of n bytes may unfold to: what must be free for it.
func MaxDecoded(n int) int { return min(MaxBody, max(freeSize, maxRatio*min(n, MaxBody))) }

// plainBody is the request's body without its encoding. The encoding ends here: what is forwarded has none.
func (in Input) plainBody() ([]byte, error) {
	switch strings.ToLower(in.ContentEncoding) {
	case "", "identity":
		if len(in.Body) > MaxBody {
			return nil, errTooLarge()
		}
		return in.Body, nil
	case "gzip", "x-gzip":
		return in.unfold(func(r *bytes.Reader) (io.ReadCloser, error) {
			z, err := gzip.NewReader(r)
			if err != nil {
				return nil, err
			}
			z.Multistream(false) // one member: what follows it is no body to some decoders
			return z, nil
		})
	case "zstd":
		return in.unfold(func(r *bytes.Reader) (io.ReadCloser, error) {
			z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
			if err != nil {
				return nil, err
			}
			return z.IOReadCloser(), nil
		})
	}
	return nil, &Error{415, "encoding_unsupported", "this encoding of a request body is not accepted; send it plain, or as gzip or zstd alone"}
}

// unfold reads a compressed body to its end, and no further than its size allows.
func (in Input) unfold(open func(*bytes.Reader) (io.ReadCloser, error)) ([]byte, error) {
	if len(in.Body) > MaxBody {
		return nil, errTooLarge()
	}
	source := bytes.NewReader(in.Body)
	z, err := open(source)
	if err != nil {
		return nil, errEncoding()
	}
	defer z.Close()
	limit := MaxDecoded(len(in.Body))
	var plain bytes.Buffer
	n, err := plain.ReadFrom(io.LimitReader(z, int64(limit)+1))
	switch {
	case errors.Is(err, zstd.ErrWindowSizeExceeded), errors.Is(err, zstd.ErrDecoderSizeExceeded), n > int64(limit):
		return nil, &Error{413, "body_too_large", "the request body unfolds to more than 32 MiB, or to more than 64 times its size"}
	case err != nil, source.Len() > 0:
		return nil, errEncoding()
	}
	return plain.Bytes(), nil
}

func errTooLarge() error {
	return &Error{413, "body_too_large", "the request body is larger than 32 MiB"}
}

func errEncoding() error {
	return &Error{400, "encoding_invalid", "the request body is not what its Content-Encoding says"}
}
