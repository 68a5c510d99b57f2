package translate

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
)

// The folders of the tokenizers in a model directory, if each language has one.
const (
	sourceFolder = "source"
	targetFolder = "target"
)

// Model is a trained translation model. It is safe for concurrent use.
type Model struct {
	task.Memory
	cfg   Config
	tok   tokenizers
	net   *network
	slab  *tensor.Slab
	most  int // tokens of the longest source in training; longer ones are divided
	notes []string
}

// saved is a Model's part of config.json.
type saved struct {
	Config Config   `json:"config"`
	Most   int      `json:"longest_source"`
	Notes  []string `json:"notes"`
}

// Config returns the configuration, in which the values that depend on the data
// are set.
func (m *Model) Config() Config { return m.cfg }

// Slab returns the network's parameters. They must not be changed while the model
// is in use.
func (m *Model) Slab() *tensor.Slab { return m.slab }

// Notes returns remarks on the training data, a sentence each.
func (m *Model) Notes() []string { return slices.Clone(m.notes) }

// Tokenizers returns those of the source and the target, the same one if shared.
func (m *Model) Tokenizers() (source, target *text.Tokenizer) { return m.tok.source, m.tok.target }

// newModel makes an untrained model for settled settings.
func newModel(cfg Config, tok tokenizers, on *tensor.Device) (_ *Model, err error) {
	defer tensor.Recover(&err)
	m := &Model{cfg: cfg, tok: tok}
	for _, t := range []*text.Tokenizer{tok.source, tok.target} {
		if v := t.Vocabulary(); v.BeginID() < 0 || v.EndID() < 0 {
			return nil, fmt.Errorf("the vocabulary lacks the tokens that begin and end a sequence")
		}
	}
	if m.net, err = newNetwork(&m.cfg, tok.source.Vocabulary().Len(), tok.target.Vocabulary().Len()); err != nil {
		return nil, err
	}
	m.slab = tensor.Pack(on, m.net, cfg.Seed)
	return m, nil
}

// Save writes the model to a directory that [Open] reads. Its errors are those of
// [model.Save].
func (m *Model) Save(dir string) error {
	parts := append(m.Remembered(), model.Weights(m.slab))
	if m.cfg.Separate {
		parts = append(parts, m.tok.source.Part(sourceFolder), m.tok.target.Part(targetFolder))
	} else {
		parts = append(parts, m.tok.source.Part(""))
	}
	return model.Save(dir, Name, saved{m.cfg, m.most, m.notes}, parts...)
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
	if err := d.For(Name, "a translation model", &c); err != nil {
		return nil, err
	}
	if err := c.Config.Validate(); err != nil {
		return nil, d.Broken(err)
	}
	if c.Most < 1 {
		return nil, d.Broken(fmt.Errorf("longest_source: want a positive number, got %d", c.Most))
	}
	tok, err := openTokenizers(d, c.Config.Separate)
	if err != nil {
		return nil, err
	}
	m, err := newModel(c.Config, tok, cmp.Or(on...))
	if err != nil {
		return nil, d.Broken(err)
	}
	m.most, m.notes = c.Most, c.Notes
	return m, cmp.Or(d.Load(m.slab), m.Recall(d))
}

func openTokenizers(d *model.Dir, separate bool) (t tokenizers, err error) {
	if !separate {
		t.source, err = text.OpenTokenizer(d, "")
		t.target = t.source
		return t, err
	}
	if t.source, err = text.OpenTokenizer(d, sourceFolder); err == nil {
		t.target, err = text.OpenTokenizer(d, targetFolder)
	}
	return t, err
}
