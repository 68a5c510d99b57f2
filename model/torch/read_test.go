package torch

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model"
)

// writers are the versions of PyTorch whose files are kept in testdata: 1.13
// and 2.15. internal/golden/gen/torch_files.py writes them.
var writers = []string{"torch1", "torch2"}

// expected returns what the writer of a folder of testdata says its files hold:
// the tensors by the name of the file.
func expected(t *testing.T, folder string) map[string][]model.Tensor {
	t.Helper()
	want, err := model.ReadTensors(filepath.Join("testdata", folder, "expected.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	byFile := map[string][]model.Tensor{}
	for _, w := range want.Tensors {
		file, name, _ := strings.Cut(w.Name, "/")
		w.Name = name
		byFile[file] = append(byFile[file], w)
	}
	return byFile
}

// TestReadsPyTorch holds every tensor of every kept file against what the
// version of PyTorch that wrote it says is in it.
func TestReadsPyTorch(t *testing.T) {
	for _, writer := range writers {
		byFile := expected(t, writer)
		if len(byFile) < 12 {
			t.Fatalf("%s: only %d files", writer, len(byFile))
		}
		for file, tensors := range byFile {
			path := filepath.Join("testdata", writer, file)
			got, err := Read(path, nil)
			if err != nil {
				t.Error(err)
				continue
			}
			for _, problem := range differences(got, tensors) {
				t.Errorf("%s: %s", path, problem)
			}
		}
	}
}

// differences lists where f is not exactly want, order apart.
func differences(f *model.File, want []model.Tensor) []string {
	var bad []string
	if len(f.Tensors) != len(want) {
		bad = append(bad, "another number of tensors")
	}
	for _, w := range want {
		switch g := f.Lookup(w.Name); {
		case g == nil:
			bad = append(bad, w.Name+" is missing")
		case !slices.Equal(g.Dims, w.Dims) || !slices.Equal(g.Data, w.Data) || !slices.Equal(g.Ints, w.Ints):
			bad = append(bad, w.Name+" differs")
		}
	}
	return bad
}

func TestReadKeepsOrder(t *testing.T) {
	f, err := Read("testdata/torch2/tagger.pt", nil)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := f.Tensors[0].Name, f.Tensors[len(f.Tensors)-1].Name; a != "embed.weight" || b != "head.bias" {
		t.Errorf("first %s, last %s", a, b)
	}
}

func TestReadKey(t *testing.T) {
	for _, c := range []struct {
		file, key string
		want      float32 // of w[0]
		path      string
	}{
		{"two.pt", "nets.model", 1, "nets.model"},
		{"two.pt", "nets.ema", 0, "nets.ema"},
		{"mixed.pt", "", 1, ""},
	} {
		f, err := Read("testdata/torch2/"+c.file, &Options{Key: c.key})
		if err != nil {
			t.Error(err)
			continue
		}
		if w := f.Lookup("w"); w == nil || w.Data[0] != c.want || f.Meta[KeyMeta] != c.path {
			t.Errorf("%s, key %q: %v, metadata %v", c.file, c.key, f.Tensors, f.Meta)
		}
	}
	f, err := Read("testdata/torch2/tagger.pt", &Options{Skip: []string{"lstm", "head.bias", "emb"}})
	if err != nil || len(f.Tensors) != 4 || f.Lookup("embed.weight") == nil || f.Lookup("head.weight") == nil {
		t.Errorf("%v, left are %v", err, f)
	}
	f, err = Read("testdata/torch1/checkpoint.pt", nil)
	if err != nil || f.Meta[KeyMeta] != "model" {
		t.Errorf("%v, metadata %v", err, f.Meta)
	}
}

func TestRename(t *testing.T) {
	by := map[string]string{"lstm": "rnn", "module": "", "net.fc": "head", "w": "v"}
	for name, want := range map[string]string{
		"lstm.weight_ih_l0": "rnn.weight_ih_l0", "lstm2.weight": "lstm2.weight", "module.a.b": "a.b",
		"net.fc.bias": "head.bias", "net.fcx.bias": "net.fcx.bias", "w": "v",
	} {
		if got := rename(name, by); got != want {
			t.Errorf("%s became %s, want %s", name, got, want)
		}
	}
	if got := rename("weight_ih_l0", map[string]string{"": "rnn"}); got != "rnn.weight_ih_l0" {
		t.Error(got)
	}
}

// TestRefusals: what cannot be read is named in one line, as the caller's error.
func TestRefusals(t *testing.T) {
	safe := filepath.Join("testdata", "torch1", "expected.safetensors")
	short := func(file string, n int64) string {
		text, err := os.ReadFile(filepath.Join("testdata", "torch2", file))
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), file)
		if n < 0 {
			text[int64(len(text))/2] ^= 4
			n = int64(len(text))
		}
		if err := os.WriteFile(path, text[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, c := range []struct{ path, key, want string }{
		{"testdata/torch2/module.pt", "", `it needs "torch.nn.modules.linear.Linear", which only Python can run; save the weights alone`},
		{"testdata/torch1/module.pt", "", `it needs "torch.nn.modules.linear.Linear"`},
		{"testdata/torch2/two.pt", "", `holds 2 state_dicts: "nets.model" (1 tensors), "nets.ema" (1 tensors); choose one by its key (--key)`},
		{"testdata/torch2/two.pt", "nets", `has no state_dict under the key "nets"; it has "nets.model" (1 tensors), "nets.ema"`},
		{"testdata/torch2/none.pt", "", "found no dict of tensors"},
		{"testdata", "", "got a directory"},
		{"nowhere.pt", "", "nowhere.pt: cannot be read: no such file"},
		{safe, "", "a safetensors file, not one of torch.save; name it .safetensors"},
		{"read_test.go", "", "begins neither like a zip file nor like a pickle"},
		{short("tagger.pt", 3000), "", "truncated or damaged"},
		{short("tagger.pth", 3000), "", "truncated: storage"},
		{short("tagger.pth", 900), "", "pickle: ends at byte 900, in the middle"},
		{short("tagger.pt", 0), "", "begins neither"},
		{short("tagger.pt", -1), "", "damaged"},
	} {
		_, err := Read(c.path, &Options{Key: c.key})
		var fe *model.FileError
		if !errors.As(err, &fe) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: got %v, want a FileError with %q", c.path, err, c.want)
		}
	}
}

// TestNoFileBreaksIt damages good files at every byte and at every length: each
// is read or refused, without a panic, and never silently misread where the
// archive's checksums cover the byte.
func TestNoFileBreaksIt(t *testing.T) {
	for _, file := range []string{"torch2/types.pt", "torch1/types.pth", "torch2/two.pt", "torch2/views.pth"} {
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		for i := range text {
			altered := slices.Clone(text)
			altered[i] ^= 0xff
			readBytes(t, altered)
			readBytes(t, text[:i])
		}
	}
}
