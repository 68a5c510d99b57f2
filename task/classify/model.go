package classify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
	"github.com/carousel-ml/carousel/train"
)

// linearFile holds the linear method in a model directory.
const linearFile = "linear.safetensors"

// Model is a trained classifier of texts. It is safe for concurrent use.
type Model struct {
	task.Memory
	cfg       Config
	classes   []string
	counts    []int // training texts by class
	tokenizer *text.Tokenizer
	net       *network
	slab      *tensor.Slab
	linear    *linear
	share     float64 // of the linear method in the answers
	notes     []string
}

// saved is a Model's part of config.json.
type saved struct {
	Config  Config   `json:"config"`
	Classes []string `json:"classes"`
	Counts  []int    `json:"counts"`
	Share   float64  `json:"share"`
	Penalty float64  `json:"penalty"`
	Notes   []string `json:"notes"`
}

// Config returns the configuration, in which the values that depend on the data
// are set.
func (m *Model) Config() Config { return m.cfg }

// Slab returns the network's parameters. They must not be changed while the model
// is in use.
func (m *Model) Slab() *tensor.Slab { return m.slab }

// Notes returns remarks on the training, a sentence each: texts cut, labels
// unseen, vectors read.
func (m *Model) Notes() []string { return slices.Clone(m.notes) }

// String describes the network in a few words.
func (m *Model) String() string { return m.cfg.describe() }

// Classes returns the labels in the order of their class numbers: numbers by
// value, then others by name.
func (m *Model) Classes() []string { return slices.Clone(m.classes) }

// several reports whether a text may have more than one label.
func (m *Model) several() bool { return m.cfg.Separator != "" }

// newModel makes an untrained model for settled settings.
func newModel(cfg Config, classes []string, counts []int, tok *text.Tokenizer, on *tensor.Device) (_ *Model, err error) {
	defer tensor.Recover(&err)
	m := &Model{cfg: cfg, classes: classes, counts: counts, tokenizer: tok}
	if m.net, err = newNetwork(&m.cfg, tok.Vocabulary().Len(), len(classes), tok.Vocabulary().PadID()); err != nil {
		return nil, err
	}
	m.slab = tensor.Pack(on, m.net, cfg.Seed)
	return m, nil
}

// Save writes the model to a directory that [Open] reads. Its errors are those of
// [model.Save].
func (m *Model) Save(dir string) error {
	c := saved{m.cfg, m.classes, m.counts, m.share, m.linear.penalty, m.notes}
	return model.Save(dir, Name, c, append(m.Remembered(), model.Weights(m.slab), m.tokenizer.Part(""), model.Tensors(linearFile, m.linear.tensors(), nil))...)
}

// Open reads a model directory. A directory that is missing, damaged or of
// another task is a *model.FileError. The network is put on the device given, by
// default the CPU.
func Open(dir string, on ...*tensor.Device) (*Model, error) {
	return model.OpenAs(dir, OpenDir, on...)
}

// OpenDir is [Open] for a directory that has been read already, with the same
// errors.
func OpenDir(d *model.Dir, on ...*tensor.Device) (_ *Model, err error) {
	defer tensor.Recover(&err)
	var c saved
	if err := d.For(Name, "a classifier", &c); err != nil {
		return nil, err
	}
	if err := c.Config.Validate(); err != nil {
		return nil, d.Broken(err)
	}
	if len(c.Classes) < 2 || len(c.Counts) != len(c.Classes) || !(c.Share >= 0 && c.Share <= 1) {
		return nil, d.Broken(fmt.Errorf("classes, counts or share are invalid"))
	}
	tok, err := text.OpenTokenizer(d, "")
	if err != nil {
		return nil, err
	}
	m, err := newModel(c.Config, c.Classes, c.Counts, tok, cmp.Or(on...))
	if err != nil {
		return nil, d.Broken(err)
	}
	m.share, m.notes = c.Share, c.Notes
	if err := d.Load(m.slab); err != nil {
		return nil, err
	}
	if m.linear, err = openLinear(d, len(m.classes), m.several()); err != nil {
		return nil, err
	}
	m.linear.penalty = c.Penalty
	return m, m.Recall(d)
}

// inferItems is the largest number of padded tokens in a batch at inference.
const inferItems = 1 << 14

// logProbabilities returns the network's log-probabilities [texts][classes]. They
// do not depend on which texts share a batch.
func (m *Model) logProbabilities(ctx context.Context, t *tensor.Tape, c *corpus) ([][]float64, error) {
	out, classes := make([][]float64, c.len()), len(m.classes)
	var b batch
	batches := train.NewBuckets(c.lengths(), inferItems, 256, 0).InOrder()
	return out, train.Share(ctx, len(batches), func(_ context.Context, i int) ([]float32, error) {
		t.Reset()
		b.load(c, batches[i], m.tokenizer.Vocabulary().PadID())
		logits, _, _ := m.net.forward(t, &b)
		return logits.Data(), nil
	}, func(i int, logits []float32) error {
		for r, at := range batches[i] {
			out[at] = make([]float64, classes)
			logProbabilities(out[at], logits[r*classes:][:classes], m.several())
		}
		return nil
	})
}

// answer returns the model's log-probabilities [texts][classes]: the network's,
// mixed with those of the linear method.
func (m *Model) answer(ctx context.Context, c *corpus) ([][]float64, error) {
	p, err := m.logProbabilities(ctx, tensor.NewTape(m.slab.Device(), tensor.Infer), c)
	if err != nil || m.share == 0 {
		return p, err
	}
	return m.mixed(p, m.linear.logProbabilities(c)), nil
}

// mixed returns the network's answers with the linear method's share.
func (m *Model) mixed(network, linear [][]float64) [][]float64 {
	p := make([][]float64, len(network))
	for i := range p {
		p[i] = mix(network[i], linear[i], m.share)
	}
	return p
}

// compareLabels orders numbers by value before other labels by name. The order of
// two labels does not depend on the others.
func compareLabels(a, b string) int {
	x, errX := strconv.ParseFloat(a, 64)
	y, errY := strconv.ParseFloat(b, 64)
	switch {
	case errX == nil && errY == nil:
		return cmp.Or(cmp.Compare(x, y), cmp.Compare(a, b))
	case errX == nil:
		return -1
	case errY == nil:
		return 1
	}
	return cmp.Compare(a, b)
}
