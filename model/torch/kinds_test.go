package torch

import (
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model"
)

// kind is a file that internal/golden/gen/torch_kinds.py writes.
func kind(file string) string { return filepath.Join("testdata", "kinds", file) }

// Programs of torch.jit.save, and NumPy's arrays in checkpoints and archives,
// hold what PyTorch and NumPy say.
func TestReadsKinds(t *testing.T) {
	byFile := expected(t, "kinds")
	if len(byFile) != 8 {
		t.Errorf("%d files", len(byFile))
	}
	for file, tensors := range byFile {
		var notes []string
		got, err := Read(kind(file), &Options{Note: func(text string) { notes = append(notes, text) }})
		if err != nil {
			t.Error(err)
			continue
		}
		for _, problem := range differences(got, tensors) {
			t.Errorf("%s: %s", file, problem)
		}
		note := map[string]string{"numpy.pt": "names, objects", "numpy5.pt": "names, objects", "numpy.pth": "names, objects", "arrays.npz": "names, objects", "beside.pt": "mean"}[file]
		if text := strings.Join(notes, "\n"); (note != "") != (text != "") || !strings.HasSuffix(text, note) {
			t.Errorf("%s: notes %q, want %q", file, text, note)
		}
	}
	// NumPy 2 has another name for the module.
	z, err := zip.OpenReader(kind("numpy.pt"))
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	for _, f := range z.File {
		if strings.HasSuffix(f.Name, "/data.pkl") {
			r, _ := f.Open()
			text, _ := io.ReadAll(r)
			f, err := readBytes(t, archived(strings.ReplaceAll(string(text), "numpy.core.", "numpy._core.")))
			if err != nil {
				t.Fatal(err)
			}
			for _, problem := range differences(f, byFile["numpy.pt"]) {
				t.Error(problem)
			}
		}
	}
}

// Tensors in lists and tuples are named by their indices; those that are not in
// the state_dict are noted.
func TestReadsLists(t *testing.T) {
	byFile := expected(t, "lists")
	if len(byFile) != 8 {
		t.Errorf("%d files", len(byFile))
	}
	for file, tensors := range byFile {
		note := ""
		got, err := Read(filepath.Join("testdata", "lists", file), &Options{Note: func(text string) { note += text }})
		if err != nil {
			t.Error(err)
			continue
		}
		for _, problem := range differences(got, tensors) {
			t.Errorf("%s: %s", file, problem)
		}
		want := map[string]string{"trainer.pt": ": losses.train.0, losses.train.1, losses.scores.0, losses.scores.1"}[file]
		if !strings.HasSuffix(note, want) || (want == "") != (note == "") {
			t.Errorf("%s: note %q, want %q", file, note, want)
		}
	}
	for _, c := range []struct{ file, key, want string }{
		{"modules.pt", "modules.1", "weight bias"},
		{"modules.pt", "modules", "0.weight_ih_l0 0.weight_hh_l0 0.bias_ih_l0 0.bias_hh_l0 1.weight 1.bias"},
		{"mixed.pt", "rest.2", "0 2"},
		{"trainer.pt", "losses", "train.0 train.1 scores.0"},
	} {
		f, err := Read(filepath.Join("testdata", "lists", c.file), &Options{Key: c.key})
		if err != nil {
			t.Error(err)
			continue
		}
		var names []string
		for _, w := range f.Tensors {
			names = append(names, w.Name)
		}
		if got := strings.Join(names, " "); got != c.want || f.Meta[KeyMeta] != c.key {
			t.Errorf("%s of %s: %q, want %q", c.key, c.file, got, c.want)
		}
	}
}

func TestSameDictTwice(t *testing.T) {
	for _, key := range []string{"model", "ema", "all.last"} {
		f, err := Read(kind("same.pt"), &Options{Key: key})
		if err != nil || len(f.Tensors) != 1 || f.Meta[KeyMeta] != key {
			t.Errorf("%s: %v, %v", key, f, err)
		}
	}
	if _, err := Read(kind("same.pt"), &Options{Key: "all.first"}); err == nil {
		t.Error("a key that is not there was found")
	}
}

// A tensor of a kind that is not read is named as such, unless it is left out.
func TestRefusedKinds(t *testing.T) {
	for file, want := range map[string]string{
		"sparse.pt": "tensor w: a sparse tensor", "csr.pt": "tensor w: a sparse tensor", "complex.pt": "tensor w: a complex tensor", "meta.pt": "tensor w: a meta tensor",
		"quantized.pt": "tensor w: a quantized tensor", "channels.pt": "tensor w: a quantized tensor", "packed.pt": "a quantized tensor, which is not read; save the state_dict of the model before it is quantized",
	} {
		_, err := Read(kind(file), nil)
		var fe *model.FileError
		if !errors.As(err, &fe) || !strings.Contains(err.Error(), want) || fe.Fix == "" || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want a FileError with %q", file, err, want)
		}
		if file != "packed.pt" {
			if f, err := Read(kind(file), &Options{Skip: []string{"w"}}); err != nil || len(f.Tensors) != 1 {
				t.Errorf("%s without it: %v", file, err)
			}
		}
	}
}

// npz is an archive of one member.
func npz(name, header string, data []byte, method uint16) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	f, _ := z.CreateHeader(&zip.FileHeader{Name: name, Method: method})
	f.Write([]byte("\x93NUMPY\x01\x00" + string([]byte{byte(len(header)), byte(len(header) >> 8)}) + header))
	f.Write(data)
	z.Close()
	return b.Bytes()
}

func TestHostileArrays(t *testing.T) {
	header := func(shape string) string {
		return "{'descr': '<f4', 'fortran_order': False, 'shape': (" + shape + "), }"
	}
	cycle := "\x80\x02c__torch__\nM\n)\x81q\x00}X\x01\x00\x00\x00ah\x00sb."
	program := func(pickle string) []byte {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for _, m := range [][2]string{{"a/data.pkl", pickle}, {"a/constants.pkl", "\x80\x02)."}} {
			f, _ := z.CreateHeader(&zip.FileHeader{Name: m[0], Method: zip.Store})
			f.Write([]byte(m[1]))
		}
		z.Close()
		return b.Bytes()
	}
	// Each module holds the one before it twice.
	laughs := "\x80\x02c__torch__\nM\n)\x81q\x00}b"
	for i := range 60 {
		laughs += "c__torch__\nM\n)\x81}(X\x01\x00\x00\x00ah" + string(rune(i)) + "X\x01\x00\x00\x00bh" + string(rune(i)) + "ubq" + string(rune(i+1))
	}
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"fewer elements than said", npz("w.npy", header("2, 3"), make([]byte, 20), zip.Store), "an array of shape [2 3] has 5 elements"},
		{"a shape beyond memory", npz("w.npy", header("4294967296, 4294967296, 4294967296"), make([]byte, 20), zip.Store), "is not valid"},
		{"odd bytes", npz("w.npy", header("5"), make([]byte, 21), zip.Store), "21 bytes for elements of 4"},
		{"no array", npz("w.npy", "", nil, zip.Store)[:60], "truncated or damaged"},
		{"a bomb", npz("w.npy", header("16777216"), make([]byte, 1<<26), zip.Deflate), "out of proportion"},
		{"no arrays of numbers", npz("w.npy", "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", nil, zip.Store), "found no dict of tensors"},
		{"a module in itself", program(cycle), "without parameters and buffers"},
		{"modules that hold each other twice", program(laughs + "."), "without parameters and buffers"},
		{"a class that is not of TorchScript", program("\x80\x02cposix\nsystem\n)\x81."), `it needs "posix.system"`},
		{"a class of TorchScript elsewhere", archived(cycle), `it needs "__torch__.M"`},
		{"an array's state", archived("\x80\x02cnumpy.core.multiarray\n_reconstruct\n)RNb."), "an array's state is not valid"},
	} {
		if _, err := readBytes(t, c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	for _, file := range []string{"numpy.pt", "arrays.npz", "compressed.npz", "sparse.pt"} {
		text, err := os.ReadFile(kind(file))
		if err != nil {
			t.Fatal(err)
		}
		for i := range text {
			if i%3 == 0 {
				altered := slices.Clone(text)
				altered[i] ^= 0xff
				readBytes(t, altered)
				readBytes(t, text[:i])
			}
		}
	}
}
