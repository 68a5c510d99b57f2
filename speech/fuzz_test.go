package speech

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// FuzzManifest: any bytes give utterances or an error.
func FuzzManifest(f *testing.F) {
	for _, s := range []string{"audio,text\na.wav,b\n", "audio\ttext\nx\t\"y\n", "text;audio\n;\n"} {
		f.Add([]byte(s))
	}
	path := filepath.Join(f.TempDir(), "m.csv")
	cfg := DefaultSetup()
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		list, err := cfg.ReadManifest(t.Context(), path, "text", nil, func(*Utterance) error { return nil })
		if err == nil && len(list) == 0 {
			t.Fatal("neither utterances nor an error")
		}
	})
}

// FuzzFeatures: any bytes of .npy and .mfc give finite frames or an error.
func FuzzFeatures(f *testing.F) {
	f.Add([]byte("\x93NUMPY\x01\x00\x3b\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n12345678"))
	f.Add([]byte("\x00\x00\x00\x02\x3f\x80\x00\x00\x3f\x80\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		readNPY(bytes.NewReader(b), int64(len(b)))
		readMFC(bytes.NewReader(b), int64(len(b)), 2)
	})
}
