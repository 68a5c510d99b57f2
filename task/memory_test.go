package task_test

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"testing"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
)

// Copies count: a file has as many samples of a part as were remembered, and more are
// new. Those of the test part come first, those of training last.
func TestDivide(t *testing.T) {
	var m task.Memory
	if m.Remembers() {
		t.Error("nothing is remembered")
	}
	m.Add(task.Training, 5, 5, 7, 9)
	m.Add(task.Validation, 5)
	m.Add(task.Test, 7)
	const learnt, chosen, test = task.Training, task.Validation, task.Test
	for _, c := range []struct {
		sums []uint64
		want []task.Part
	}{
		{[]uint64{5, 5, 5, 5, 5}, []task.Part{chosen, learnt, learnt, test, test}},
		{[]uint64{7, 9, 7, 7}, []task.Part{test, learnt, learnt, test}},
		{[]uint64{1, 9, 2, 9}, []task.Part{test, learnt, test, test}},
		{nil, []task.Part{}},
	} {
		if got := m.Divide(c.sums); !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, want %v", c.sums, got, c.want)
		}
	}
}

// What a sample holds counts, not where it stands or how its words are spaced.
func TestContent(t *testing.T) {
	part := func(one data.Example) task.Part {
		parts := task.Parts[data.Example]{Training: []data.Example{{Line: 3, Text: "a  good\r\nfilm", Labels: []string{"x", "y"}}}}
		var m task.Memory
		parts.Remember(&m)
		other := task.Parts[data.Example]{Whole: []data.Example{one}}
		if err := other.Recognise(t.Context(), &m); err != nil {
			t.Fatal(err)
		}
		if other.Has(task.Training) {
			return task.Training
		}
		return task.Test
	}
	for want, list := range map[task.Part][]data.Example{
		task.Training: {{Line: 9, Text: "a good film ", Labels: []string{"x", "y"}}},
		task.Test:     {{Line: 3, Text: "a good film", Labels: []string{"x"}}, {Line: 3, Text: "a good", Labels: []string{"film", "x", "y"}}, {Line: 3, Text: "agood film", Labels: []string{"x", "y"}}},
	} {
		for _, one := range list {
			if got := part(one); got != want {
				t.Errorf("%+v is of the part %s, want %s", one, got, want)
			}
		}
	}
}

// A directory gives back what was remembered; what cannot be that is refused.
func TestRecall(t *testing.T) {
	slab := tensor.Pack(nil, nn.NewLinear(1, 1, nil), 1)
	open := func(parts ...model.Part) *model.Dir {
		t.Helper()
		dir := t.TempDir()
		if err := model.Save(dir, "sum", struct{}{}, append(parts, model.Weights(slab))...); err != nil {
			t.Fatal(err)
		}
		d, err := model.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	var none, m, again task.Memory
	if err := none.Recall(open(none.Remembered()...)); err != nil || none.Remembers() {
		t.Errorf("of nothing: %v", err)
	}
	m.Add(task.Training, 1<<63, 3, 2)
	m.Add(task.Test, 8)
	files := m.Remembered()
	if err := again.Recall(open(files...)); err != nil || !slices.Equal(again.Sums(task.Training), []uint64{2, 3, 1 << 63}) || len(again.Sums(task.Validation)) > 0 || !again.Has(task.Test, 8) {
		t.Errorf("got %+v, %v", again, err)
	}
	good := "parts 1\n" + fmt.Sprintf("%c\x00\x00\x00\x00\x00\x00\x00", 1) + string(make([]byte, 16)) + "\x01\x00\x00\x00\x00\x00\x00\x00"
	for _, text := range []string{"", "parts", good[:len(good)-1], good + "x", "parts 2\n" + good[8:], good[:8] + "\xff\xff\xff\xff\xff\xff\xff\xff" + good[16:], good} {
		bad := model.Part{Name: files[0].Name, Write: func(w io.Writer) error { _, err := io.WriteString(w, text); return err }}
		var file *model.FileError
		if err := new(task.Memory).Recall(open(bad)); errors.As(err, &file) == (text == good) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Samples that occur in several parts, in files of each part and of all of them.
func TestCopiesInSeveralParts(t *testing.T) {
	const short, often = 1, 2 // in training and test, in all three parts
	var m task.Memory
	training := []uint64{short, short, short, often, often, 10, 11, 12, 13}
	validation := []uint64{often, 20, 21}
	test := []uint64{short, often, often, 30, 31, 32}
	m.Add(task.Training, training...)
	m.Add(task.Validation, validation...)
	m.Add(task.Test, test...)
	for _, c := range []struct {
		name                  string
		file                  []uint64
		training, valid, test int
	}{
		{"training's file", training, 9, 0, 0},
		{"validation's file", validation, 0, 3, 0},
		{"the test file", test, 0, 0, 6},
		{"all", slices.Concat(training, validation, test), 9, 3, 6},
		{"training and test", slices.Concat(test, training), 9, 0, 6},
		{"one more copy", append(slices.Clone(training), short), 9, 0, 1},
		{"new samples", []uint64{40, 41}, 0, 0, 2},
	} {
		n := map[task.Part]int{}
		for _, part := range m.Divide(c.file) {
			n[part]++
		}
		if n[task.Training] != c.training || n[task.Validation] != c.valid || n[task.Test] != c.test {
			t.Errorf("%s: %v, want %d, %d, %d", c.name, n, c.training, c.valid, c.test)
		}
	}
}

// The hashes are in models' directories: they stay those of FNV-1a over the words.
func TestSum(t *testing.T) {
	h := fnv.New64a()
	h.Write([]byte("an \u00e9t\u00e9 \x00\x00x \x00"))
	if got := task.Sum(" an\t\u00e9t\u00e9\n", "", "x"); got != h.Sum64() {
		t.Errorf("got %x, want %x", got, h.Sum64())
	}
}
