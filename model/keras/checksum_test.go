package keras

import (
	"bytes"
	"strings"
	"testing"
)

// One bit changed anywhere in the stored weights of a .keras file is found by the
// archive's checksum.
func TestDamagedWeights(t *testing.T) {
	whole := load(t, "float64.keras")
	at := bytes.Index(whole, []byte(signature)) // of the weights
	if at < 0 {
		t.Fatal("the file has no HDF5 member")
	}
	for offset := at + 100; offset < at+8000; offset += 501 {
		b := bytes.Clone(whole)
		b[offset] ^= 4
		if _, err := readBytes(t, b); err == nil || !strings.Contains(err.Error(), "checksum") {
			t.Fatalf("byte %d: %v", offset, err)
		}
	}
}
