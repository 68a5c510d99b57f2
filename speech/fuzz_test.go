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

// FuzzCache: any bytes of cached features are frames as they were written, or none.
func FuzzCache(f *testing.F) {
	path := filepath.Join(f.TempDir(), "a.features")
	if err := writeCache(path, []float32{1, 2, 3, 4}, 2); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:12])
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := os.WriteFile(path, b, 0o666); err != nil {
			t.Fatal(err)
		}
		frames, ok := readCache(path, 2)
		if !ok {
			return
		}
		if err := writeCache(path, frames, 2); err != nil {
			t.Fatal(err)
		}
		if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x is written as %x", b, again)
		}
	})
}
