package keras

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// readBytes reads a file from memory. An error must be a FileError of one line.
func readBytes(t testing.TB, text []byte) (*Weights, error) {
	t.Helper()
	w, err := decode("x.keras", bytes.NewReader(text), int64(len(text)), nil)
	if err != nil {
		var fe *model.FileError
		if !errors.As(err, &fe) || strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("not a FileError of one line: %q", err)
		}
	}
	return w, err
}

func load(t testing.TB, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// archived is a .keras file of these two members.
func archived(config string, weights []byte, method uint16) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, m := range []struct {
		name string
		data []byte
	}{{"config.json", []byte(config)}, {"model.weights.h5", weights}} {
		f, _ := z.CreateHeader(&zip.FileHeader{Name: m.name, Method: method})
		f.Write(m.data)
	}
	z.Close()
	return b.Bytes()
}

// patched replaces the first place of some bytes.
func patched(t *testing.T, text []byte, old, new []byte, skip int) []byte {
	t.Helper()
	at := bytes.Index(text, old)
	if at < 0 {
		t.Fatalf("the file has no %q", old)
	}
	out := bytes.Clone(text)
	copy(out[at+skip:], new)
	return out
}

func TestHostileFiles(t *testing.T) {
	h5 := load(t, "tagger.weights.h5")
	le := func(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
	root := le(binary.LittleEndian.Uint64(h5[64:])) // address of the root group
	small := func(config string) []byte { return archived(config, h5, zip.Store) }
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"nothing", nil, "truncated"},
		{"text", []byte(strings.Repeat("a text file\n", 20)), "expected an HDF5 file"},
		{"newer", patched(t, h5, h5[:8], []byte{2}, 8), "superblock 2"},
		{"short offsets", patched(t, h5, h5[:8], []byte{4}, 13), "only 8 are known"},
		{"root elsewhere", patched(t, h5, h5[:8], le(1<<50), 64), "truncated or damaged: 16 bytes at 1125899906842624"},
		{"group in itself", patched(t, h5, []byte("SNOD"), root, 16), "occurs twice"},
		{"huge heap", patched(t, h5, []byte("HEAP"), le(1<<62), 8), "a heap of"},
		{"heap elsewhere", patched(t, h5, []byte("HEAP"), le(1<<40), 24), "truncated or damaged"},
		{"many members", patched(t, h5, []byte("SNOD"), []byte{255, 255}, 6), "damaged"},
		{"tree in itself", patched(t, h5, []byte("TREE"), le(uint64(bytes.Index(h5, []byte("TREE")))), 32), "occurs twice"},
		{"no tree", patched(t, h5, []byte("TREE"), []byte("TREA"), 0), "no members"},
		{"no archive", []byte("PK\x03\x04" + strings.Repeat("x", 100)), "truncated or damaged: zip"},
		{"no configuration", archived("", h5, zip.Store), "config.json: unexpected end"},
		{"cut weights", archived(`{"class_name":"Sequential"}`, h5[:len(h5)/2], zip.Store), "truncated or damaged"},
		{"deeper configuration", small(strings.Repeat("[", 20000)), "exceeded max depth"},
		{"a bomb", archived(`{}`, make([]byte, 1<<24), zip.Deflate), "out of proportion"},
		{"a long configuration", archived(strings.Repeat(" ", 1<<24)+"{}", h5, zip.Deflate), "out of proportion"},
		{"missing layer", small(`{"class_name":"Sequential","config":{"layers":[{"module":"keras.layers","class_name":"Dense","config":{"name":"d"}}]}}`), `layer "d" is a Dense: expected 1 to 2 arrays, got 0`},
		{"bad epsilon", archived(`{"class_name":"Sequential","config":{"layers":[{"module":"keras.layers","class_name":"LayerNormalization","config":{"name":"n","epsilon":-1}}]}}`, weightsOf(t, "classifier.keras"), zip.Store), "expected an epsilon between 0 and 1, got -1"},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := readBytes(t, c.file)
		runtime.ReadMemStats(&after)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
		if used, most := after.TotalAlloc-before.TotalAlloc, uint64(100<<20); used > most {
			t.Errorf("%s: %d bytes were allocated for a file of %d", c.name, used, len(c.file))
		}
	}
}

// weightsOf is the weights' member of a .keras file.
func weightsOf(t *testing.T, file string) []byte {
	t.Helper()
	text := load(t, file)
	z, err := zip.NewReader(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		if f.Name == "model.weights.h5" {
			b, err := inflate(f, 1<<24)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
	}
	t.Fatalf("%s has no weights", file)
	return nil
}

// Models within models are followed so far, and then not.
func TestDeepConfiguration(t *testing.T) {
	const n = 3000
	deep := strings.Repeat(`{"class_name":"Sequential","config":{"layers":[`, n) + strings.Repeat(`]}}`, n)
	w, err := readBytes(t, archived(deep, load(t, "tagger.weights.h5"), zip.Store))
	if err != nil || len(w.Arch.Layers) != 0 {
		t.Errorf("%v, %v", w, err)
	}
}

// Compressed weights, as another program may pack them, are read as well.
func TestCompressed(t *testing.T) {
	w, err := readBytes(t, archived(`{}`, weightsOf(t, "classifier.keras"), zip.Deflate))
	if err != nil || len(w.Arch.Layers) != 6 {
		t.Errorf("%v, %v", w, err)
	}
}

// TestDamage: no damage panics, and none costs memory out of proportion.
func TestDamage(t *testing.T) {
	text := load(t, "tagger.weights.h5")
	for n := 0; n < len(text); n += 701 {
		if _, err := readBytes(t, text[:n]); err == nil {
			t.Errorf("cut to %d bytes it was read", n)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		b := bytes.Clone(text)
		for range 1 + r.IntN(4) {
			b[r.IntN(len(b))] = byte(r.IntN(256))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, _ = readBytes(t, b)
		runtime.ReadMemStats(&after)
		if used := after.TotalAlloc - before.TotalAlloc; used > 1<<23 {
			t.Fatalf("%d bytes were allocated for a file of %d", used, len(b))
		}
	}
}

// FuzzRead: a file with any bytes in two places is read or refused, and so are the
// layers in it. The inputs are the changes alone: those of the length of a file
// would spend their minute in being minimised.
func FuzzRead(f *testing.F) {
	var files [][]byte
	for i, file := range []string{"tagger.weights.h5", "float16.keras", "bfloat16.keras", "keras3/norm.h5", "keras2/cudnn_weights.h5"} {
		files = append(files, load(f, file))
		f.Add(uint8(i), uint16(0), []byte{}, uint16(0), []byte{})
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint16, put []byte, also uint16, putAlso []byte) {
		text := bytes.Clone(files[int(which)%len(files)])
		for _, change := range []struct {
			at  uint16
			put []byte
		}{{at, put}, {also, putAlso}} {
			from := min(int(change.at), len(text))
			text = append(text, change.put[min(len(text)-from, len(change.put)):]...)
			copy(text[from:], change.put)
		}
		w, err := readBytes(t, text)
		if err != nil {
			return
		}
		n, err := model.Build(tensor.CPU(), w.Arch, w.File)
		if err != nil {
			return
		}
		if _, err := n.Check("x", w.Reference(), 1); err != nil && strings.Contains(err.Error(), "\n") {
			t.Error(err)
		}
	})
}
