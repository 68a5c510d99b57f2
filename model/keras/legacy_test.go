package keras

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
)

// writers are the versions of Keras whose .h5 files are kept in testdata.
// internal/golden/gen/keras_h5_files.py writes them.
var writers = []string{"keras1", "keras2", "keras3"}

// Each layer of a whole model in the layout of Keras 2 computes what Keras says;
// nothing of it is guessed.
func TestLegacyModels(t *testing.T) {
	for _, writer := range writers {
		want, err := model.ReadTensors(filepath.Join("testdata", writer, "expected.safetensors"))
		if err != nil {
			t.Fatal(err)
		}
		compared := map[string]int{}
		for _, in := range want.Tensors {
			file, rest, _ := strings.Cut(in.Name, ":")
			layer, isInput := strings.CutSuffix(rest, ":in")
			if !isInput {
				continue
			}
			w, n := read(t, filepath.Join(writer, file+".h5"), nil)
			parts := []string{layer}
			if layer == "cells" {
				parts = []string{"cells.0", "cells.1"}
			}
			if layer == "hard" && writer == "keras3" {
				if notes := strings.Join(w.Notes, "\n"); !strings.Contains(notes, "activation hard_sigmoid is not supported") {
					t.Errorf("%s: notes %q", in.Name, notes)
				}
				continue
			}
			x := tensor.NewTape(tensor.CPU(), tensor.Infer).Input(in.Data, in.Dims...)
			near(t, writer+" "+in.Name, forward(t, n, x, parts...).Data(), want.Lookup(file+":"+layer+":out").Data)
			compared[file] += len(parts)
			for _, note := range w.Notes {
				if strings.Contains(note, "are assumed") {
					t.Errorf("%s %s: %s", writer, file, note)
				}
			}
		}
		if compared["stack"] < 9 {
			t.Errorf("%s: %v layers were compared", writer, compared)
		}
	}
}

// A file of the weights alone has the same tensors as that of the whole model.
func TestLegacyWeights(t *testing.T) {
	for _, file := range []string{"keras1/stack", "keras2/stack", "keras2/cudnn"} {
		whole, _ := read(t, file+".h5", nil)
		w, _ := read(t, file+"_weights.h5", &Options{})
		for _, want := range whole.File.Tensors {
			name := want.Name
			got := w.File.Lookup(name)
			if got == nil {
				t.Errorf("%s: no %s", file, name)
			} else if !slices.Equal(got.Dims, want.Dims) || !slices.Equal(got.Data, want.Data) {
				t.Errorf("%s: %s differs from that of the whole model", file, name)
			}
		}
		if !strings.Contains(strings.Join(w.Notes, "\n"), "are assumed; the file of a whole model, by model.save, records them") {
			t.Errorf("%s: notes %q", file, w.Notes)
		}
	}
}

func TestLegacyHostile(t *testing.T) {
	h5 := load(t, "keras3/norm.h5")
	le := func(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
	attribute := []byte("model_config\x00")
	at := bytes.Index(h5, attribute) - 8 // the message's data
	kind := 8 + 16                       // in it
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"a text in no heap", patched(t, h5, []byte("GCOL"), []byte("GCOX"), 0), "no global heap"},
		{"a heap beyond the file", patched(t, h5, []byte("GCOL"), le(1<<60), 8), "no global heap"},
		{"an object beyond its heap", patched(t, h5, []byte("GCOL"), le(1<<60), 24), "an object of"},
		{"not a text", patched(t, h5, attribute, []byte{0x10}, kind-8), "the attribute model_config of \"/\" is not a text"},
		{"a long text", patched(t, h5, h5[at:at+kind], []byte{255, 255, 255, 127}, 56), "repeats more texts than the file holds"},
		{"attribute of a newer version", patched(t, h5, h5[at:at+kind], []byte{9}, 0), "an attribute of an unsupported form"},
		{"attribute with a long name", patched(t, h5, h5[at:at+kind], []byte{255, 255}, 2), "bytes too short"},
		{"no such array", bytes.Replace(h5, []byte("last/gamma"), []byte("last/gamme"), 1), "has no array"},
		{"Keras 1", bytes.ReplaceAll(h5, []byte("3.15.1"), []byte("1.22.1")), "written by Keras 1.22.1"},
		{"a divided configuration", bytes.Replace(h5, append(attribute, 0), []byte("model_config0\x00"), 1), "load and save it again"},
		{"no configuration", bytes.Replace(h5, []byte(`{"class_name": "Seq`), []byte(`["class_name": "Seq`), 1), "model_config: invalid"},
	} {
		if _, err := readBytes(t, c.file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.want)
		}
	}
	for n := 0; n < len(h5); n += 499 {
		if _, err := readBytes(t, h5[:n]); err == nil {
			t.Errorf("cut to %d bytes it was read", n)
		}
	}
	for i := range h5 { // no byte breaks it
		if i%7 == 0 {
			b := bytes.Clone(h5)
			b[i] ^= 0xff
			readBytes(t, b)
		}
	}
}
