package torch

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// readBytes reads a file from memory. An error must be a FileError of one line.
func readBytes(t testing.TB, text []byte) (*model.File, error) {
	t.Helper()
	f, err := decode("x.pt", bytes.NewReader(text), int64(len(text)), nil)
	if err != nil {
		var fe *model.FileError
		if !errors.As(err, &fe) || strings.ContainsAny(err.Error(), "\n\r") {
			t.Errorf("not a FileError of one line: %q", err)
		}
	}
	return f, err
}

// archived is a zip file with that pickle and storages data/0, data/1, ...
func archived(pickle string, storages ...[]byte) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	add := func(name string, data []byte) {
		f, _ := w.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		f.Write(data)
	}
	add("a/data.pkl", []byte(pickle))
	for i, s := range storages {
		add(fmt.Sprintf("a/data/%d", i), s)
	}
	w.Close()
	return b.Bytes()
}

// tensorOf is the pickle of one tensor on storage data/0.
func tensorOf(numel, offset int, size, stride []int) string {
	var p pickler
	p.global("torch._utils", "_rebuild_tensor_v2")
	p = append(p, "(("...)
	p.text("storage")
	p.global("torch", "FloatStorage")
	p.text("0")
	p.text("cpu")
	p.int(numel)
	p = append(p, "tQ"...)
	p.int(offset)
	p.ints(size)
	p.ints(stride)
	p = append(p, 0x89)
	p.dict()
	p = append(p, 't', 'R')
	return string(p)
}

// stateOf is a whole pickle: {"w": tensor}.
func stateOf(tensor string) string {
	var p pickler
	p.text("w")
	return "\x80\x02}" + string(p) + tensor + "s."
}

func TestHostileFiles(t *testing.T) {
	data := make([]byte, 4*6)
	huge := math.MaxInt64 / 16
	var text pickler
	text.text("x")
	x := string(text)
	// Each dict holds the one before it twice: 2^60 ways to walk.
	laughs := "\x80\x02}q\x00"
	for i := range 60 {
		laughs += "}(" + "X\x01\x00\x00\x00a" + "h" + string(rune(i)) + "X\x01\x00\x00\x00b" + "h" + string(rune(i)) + "uq" + string(rune(i+1))
	}
	// The same with lists, with a tensor at the bottom and without.
	listLaughs := func(bottom string) string {
		s := "\x80\x02" + bottom + "q\x00"
		for i := range 30 {
			s += "](h" + string(rune(i)) + "h" + string(rune(i)) + "eq" + string(rune(i+1))
		}
		return s + "."
	}
	many := strings.Builder{}
	many.WriteString("\x80\x02}(")
	for i := range 30000 { // each a view of everything
		var p pickler
		p.text(fmt.Sprint(i))
		many.WriteString(string(p) + tensorOf(1<<18, 0, []int{1 << 18}, []int{1}))
	}
	many.WriteString("u.")
	legacy := func(pickles string) []byte {
		return []byte("\x80\x02\x8a\x0a" + string(legacyMagic) + ".\x80\x02M\xe9\x03.\x80\x02}." + pickles)
	}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"calls the shell", archived("\x80\x02cposix\nsystem\n" + x + "\x85R."), `it needs "posix.system", which only Python can run`},
		{"calls eval", archived("\x80\x04\x8c\x08builtins\x8c\x04eval\x93" + x + "\x85R."), `it needs "builtins.eval"`},
		{"nests a name", archived("\x80\x04\x8c\x05torch\x8c\x0eTensor.__del__\x93."), `it needs "torch.Tensor.__del__"`},
		{"calls a string", archived("\x80\x02" + x + x + "\x85R."), "calls something that is not a function"},
		{"contains itself", archived("\x80\x02}q\x00" + x + "h\x00s."), "found no dict of tensors"},
		{"billion laughs", archived(laughs + "."), "found no dict of tensors"},
		{"billion laughs of lists", archived(listLaughs("]")), "found no dict of tensors"},
		{"billion tensors in lists", archived(listLaughs(tensorOf(6, 0, []int{6}, []int{1})), data), "more tensors in lists than are read"},
		{"list in itself", archived("\x80\x02]q\x00(h\x00h\x00]h\x00ae."), "found no dict of tensors"},
		{"long names", archived("\x80\x02}X\x00\x10\x00\x00"+strings.Repeat("n", 4096)+tensorOf(6, 0, []int{6}, []int{1})+"s.", data), "found no dict of tensors"},
		{"sets itself as attribute", archived("\x80\x02}q\x00h\x00b."), "found no dict of tensors"},
		{"deep", archived("\x80\x02" + strings.Repeat("}", 1<<20) + "."), "found no dict of tensors"},
		{"deep marks", archived("\x80\x02" + strings.Repeat("(", 1<<22) + "."), "stack is empty"},
		{"endless marks", archived("\x80\x02" + strings.Repeat("(", 1<<24+100) + "."), "more than 128 MiB"},
		{"endless values", archived("\x80\x02" + strings.Repeat("]", 1<<22) + "."), "more than 128 MiB"},
		{"endless memo", archived("\x80\x04N" + strings.Repeat("\x94", 1<<23) + "."), "more than 128 MiB"},
		{"long string", archived("\x80\x02X\xff\xff\xff\xffabc."), "a string of 4294967295 bytes"},
		{"promised string", archived("\x80\x02X\x00\x00\xff\x00abc."), "in the middle"},
		{"longer string", archived("\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc."), "a string of 18446744073709551615 bytes"},
		{"no end", archived("\x80\x02}"), "in the middle"},
		{"underflow", archived("\x80\x02tR."), "no mark"},
		{"recalls nothing", archived("\x80\x02h\x05."), "never stored"},
		{"text protocol", archived("(dp0\n."), "opcode 0x70"},
		{"path outside", archived(strings.ReplaceAll(stateOf(tensorOf(6, 0, []int{6}, []int{1})), "X\x01\x00\x00\x000", "X\x0e\x00\x00\x00../../etc/file"), data), `has no "a/data/../../etc/file"`},
		{"storage larger than the file", archived(stateOf(tensorOf(1<<40, 0, []int{1 << 40}, []int{1})), data), "out of proportion"},
		{"storage overflows", archived(stateOf(tensorOf(huge*8, 0, []int{1}, []int{1})), data), "has 4611686018427387896 elements"},
		{"storage shorter than said", archived(stateOf(tensorOf(7, 0, []int{7}, []int{1})), data), "should have 28 bytes, has 24"},
		{"storage missing", archived(stateOf(tensorOf(6, 0, []int{6}, []int{1}))), `has no "a/data/0"`},
		{"view past the end", archived(stateOf(tensorOf(6, 1, []int{2, 3}, []int{3, 1})), data), "ends at element 6 of a storage of 6"},
		{"offset past the end", archived(stateOf(tensorOf(6, 7, []int{1}, []int{1})), data), "begins at element 7"},
		{"expanded", archived(stateOf(tensorOf(6, 0, []int{1 << 30}, []int{0})), data), "out of proportion"},
		{"size overflows", archived(stateOf(tensorOf(6, 0, []int{huge, huge}, []int{0, 0})), data), "more than memory can address"},
		{"stride overflows", archived(stateOf(tensorOf(6, 0, []int{3}, []int{huge})), data), "more than memory can address"},
		{"views repeated", archived(many.String(), make([]byte, 1<<20)), "out of proportion"},
		{"legacy without storages", legacy("\x80\x02}.\x80\x02]."), "found no dict of tensors"},
		{"legacy of another version", []byte("\x80\x02\x8a\x0a" + string(legacyMagic) + ".\x80\x02K\x07."), "expected version 1001"},
		{"any pickle", []byte("\x80\x02}."), "no magic number"},
		{"legacy unused storage", legacy("\x80\x02}.\x80\x02](" + x + "e."), `no tensor uses the storage "x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			_, err := readBytes(t, c.file)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			// All allocations, of which the most alive at once is a part.
			if used := after.TotalAlloc - before.TotalAlloc; used > 1<<30 {
				t.Errorf("took %d MiB for a file of %d KiB", used>>20, len(c.file)>>10)
			}
		})
	}
}

// TestZipBomb: a compressed archive is refused before anything is expanded.
func TestZipBomb(t *testing.T) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, _ := w.Create("a/data.pkl")
	f.Write(bytes.Repeat([]byte("]"), 64<<20))
	w.Close()
	if _, err := readBytes(t, b.Bytes()); err == nil || !strings.Contains(err.Error(), "is compressed") {
		t.Error(err)
	}
	// A directory whose entry claims more than the file has.
	file := archived(stateOf(tensorOf(1<<28, 0, []int{1}, []int{1})), make([]byte, 64))
	old, big := binary.LittleEndian.AppendUint32(nil, 64), binary.LittleEndian.AppendUint32(nil, 1<<30)
	file = bytes.ReplaceAll(file, append(old, old...), append(big, big...))
	if _, err := readBytes(t, file); err == nil {
		t.Error("a storage of 1 GiB in a file of a few hundred bytes was read")
	}
	// The same member twice.
	b.Reset()
	w = zip.NewWriter(&b)
	for range 2 {
		f, _ := w.CreateHeader(&zip.FileHeader{Name: "a/data.pkl", Method: zip.Store})
		f.Write([]byte("\x80\x02}."))
	}
	w.Close()
	if _, err := readBytes(t, b.Bytes()); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Error(err)
	}
}

// FuzzRead: any bytes are read or refused, and so are the layers in them.
func FuzzRead(f *testing.F) {
	for _, writer := range writers {
		files, _ := filepath.Glob(filepath.Join("testdata", writer, "*.pt*"))
		for _, file := range files {
			if text, err := os.ReadFile(file); err == nil && len(text) < 6000 {
				f.Add(text)
			}
		}
	}
	for _, file := range []string{"numpy.pt", "arrays.npz", "same.pt", "quantized.pt"} {
		if text, err := os.ReadFile(kind(file)); err == nil {
			f.Add(text)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := readBytes(t, text)
		if err != nil {
			return
		}
		if arch, err := Describe(got, map[string]model.Kind{"*": model.RNNTanh}); err == nil {
			model.Build(tensor.CPU(), arch, got)
		}
	})
}

// FuzzPickle fuzzes the pickle inside a sound archive, beyond the reach of
// mutations that break the checksum.
func FuzzPickle(f *testing.F) {
	var text pickler
	text.text("x")
	x := string(text)
	f.Add(stateOf(tensorOf(6, 0, []int{2, 3}, []int{3, 1})))
	f.Add(stateOf(tensorOf(6, 1, []int{2, 1}, []int{0, 5})))
	f.Add(string(pickleState([]model.Tensor{{Name: "a.weight", Dims: []int{6}, Data: make([]float32, 6)}})))
	f.Add("\x80\x02}" + x + "](" + tensorOf(6, 0, []int{6}, []int{1}) + tensorOf(6, 0, []int{2, 3}, []int{3, 1}) + "es.")
	f.Add("\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01aK\x01\x8c\x01bG\x00\x00\x00\x00\x00\x00\x00\x00u.")
	f.Fuzz(func(t *testing.T, pickle string) {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got, err := readBytes(t, archived(pickle, make([]byte, 24)))
		runtime.ReadMemStats(&after)
		if took := after.TotalAlloc - before.TotalAlloc; took > uint64(100<<20+1000*len(pickle)) {
			t.Errorf("%d bytes were allocated for a pickle of %d", took, len(pickle))
		}
		if err != nil {
			return
		}
		for _, w := range got.Tensors {
			n := 1
			for _, d := range w.Dims {
				n *= d
			}
			if n != len(w.Data)+len(w.Ints) || n > 1<<21 {
				t.Errorf("%s: shape %v with %d values", w.Name, w.Dims, len(w.Data)+len(w.Ints))
			}
		}
	})
}

// A key changed in the pickle still parses; the archive's checksum finds it.
func TestDamagedPickle(t *testing.T) {
	whole, err := os.ReadFile("testdata/torch2/checkpoint.pt")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := readBytes(t, whole); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(whole, []byte("weight_ih_l0"))
	if at < 0 {
		t.Fatal("the file has no weight_ih_l0")
	}
	damaged := bytes.Clone(whole)
	damaged[at+len("weight_")] = 'h' // weight_hh_l0
	if _, err := readBytes(t, damaged); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("%v, want an error of the checksum", err)
	}
}
