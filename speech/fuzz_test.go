package speech

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/data"
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

// FuzzFeatures: any bytes of .npy and .mfc give whole, finite frames or an error.
func FuzzFeatures(f *testing.F) {
	f.Add([]byte("\x93NUMPY\x01\x00\x3b\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n12345678"))
	f.Add([]byte("\x93NUMPY\x01\x00\x3b\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n12345678"))
	f.Add([]byte("\x00\x00\x00\x02\x3f\x80\x00\x00\x3f\x80\x00\x00"))
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x80\x7f\x00\x00\x80\x3f"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, name := range []string{"a.npy", "a.mfc"} {
			path := filepath.Join(dir, name)
			if err := os.WriteFile(path, b, 0o666); err != nil {
				t.Fatal(err)
			}
			for _, width := range []int{0, 2} {
				if width == 0 && name == "a.mfc" {
					continue // which does not say how wide it is
				}
				frames, got, err := readFeatures(path, width)
				if err != nil {
					if !errors.As(err, new(*data.InputError)) {
						t.Errorf("%s: %T: %v", name, err, err)
					}
					continue
				}
				if len(frames) == 0 || got == 0 || len(frames)%got != 0 || width > 0 && got != width || 4*len(frames) > len(b) {
					t.Errorf("%s: %d numbers in frames of %d from %d bytes", name, len(frames), got, len(b))
				}
				if slices.ContainsFunc(frames, func(v float32) bool { return v-v != 0 }) {
					t.Errorf("%s: not finite: %v", name, frames)
				}
			}
		}
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
