package audit

import "os"

// fillFile writes n bytes that do not compress to nothing.
func fillFile(f *os.File, from, n int64) error {
	block := make([]byte, reserveStep)
	state := uint32(1)
	for i := range block {
		state = state*1664525 + 1013904223 // a linear congruential generator: only has to look random
		block[i] = byte(state >> 24)
	}
	for n > 0 {
		part := block[:min(n, int64(len(block)))]
		if _, err := f.WriteAt(part, from); err != nil {
			return err
		}
		from += int64(len(part))
		n -= int64(len(part))
	}
	return nil
}
