// Package translate trains networks to translate sentences: an encoder reads the
// source, a decoder that attends to it writes the target. [BLEU] and [CHRF] score
// translations as sacreBLEU does.
//
// A [Config] says how; [Train] makes a [Model] of pairs of sentences; a Model
// translates ([Model.Translate]), is scored ([Model.Evaluate]) and lives in a
// directory ([Model.Save], [Open]).
package translate

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
)

// Task is what the config.json of a model directory says of a translation model.
const Task = "translate"

// The folders of the tokenizers in a model directory, where each language has its own.
const (
	sourceFolder = "source"
	targetFolder = "target"
)

// Model is a trained translation model. It is safe for use by several goroutines.
type Model struct {
	cfg   Config
	tok   tokenizers
	net   *network
	slab  *tensor.Slab
	most  int // tokens of the longest source in training: longer ones are cut
	notes []string
}

// saved is a Model's part of config.json.
type saved struct {
	Config Config   `json:"config"`
	Most   int      `json:"longest_source"`
	Notes  []string `json:"notes"`
}

// Config is the configuration, with everything that the data settled.
func (m *Model) Config() Config { return m.cfg }

// Notes say, a sentence each, what a user might not expect of the training data.
func (m *Model) Notes() []string { return slices.Clone(m.notes) }

// Slab is the network's parameters.
func (m *Model) Slab() *tensor.Slab { return m.slab }

// Tokenizers are those of the source and the target, the same one if shared.
func (m *Model) Tokenizers() (source, target *text.Tokenizer) { return m.tok.source, m.tok.target }

// newModel makes an untrained model.
func newModel(cfg Config, tok tokenizers, on *tensor.Device) (*Model, error) {
	m := &Model{cfg: cfg, tok: tok}
	for _, t := range []*text.Tokenizer{tok.source, tok.target} {
		if v := t.Vocabulary(); v.BeginID() < 0 || v.EndID() < 0 {
			return nil, fmt.Errorf("the vocabulary lacks the tokens that begin and end a sequence")
		}
	}
	var err error
	if m.net, err = newNetwork(&m.cfg, tok.source.Vocabulary().Len(), tok.target.Vocabulary().Len()); err != nil {
		return nil, err
	}
	m.slab = tensor.Pack(on, m.net, cfg.Seed)
	return m, nil
}

// Save writes the model to a directory that [Open] reads.
func (m *Model) Save(dir string) error {
	if err := model.Save(dir, Task, saved{m.cfg, m.most, m.notes}, m.slab); err != nil {
		return err
	}
	if !m.cfg.Separate {
		return m.tok.source.Save(dir)
	}
	for folder, t := range map[string]*text.Tokenizer{sourceFolder: m.tok.source, targetFolder: m.tok.target} {
		path := filepath.Join(dir, folder)
		if err := os.MkdirAll(path, 0o777); err != nil {
			return err
		}
		if err := t.Save(path); err != nil {
			return err
		}
	}
	return nil
}

// Open reads a model directory. What is wrong with it is a *model.FileError. Its
// network lives on the device named, or else on the CPU.
func Open(dir string, on ...*tensor.Device) (*Model, error) {
	var c saved
	d, err := model.OpenTask(dir, Task, "a translation model", &c)
	if err != nil {
		return nil, err
	}
	if err := c.Config.Validate(); err != nil {
		return nil, d.Broken(err)
	}
	if c.Most < 1 {
		return nil, d.Broken(fmt.Errorf("longest_source: want a positive number, got %d", c.Most))
	}
	tok, err := openTokenizers(dir, c.Config.Separate)
	if err != nil {
		return nil, err
	}
	m, err := newModel(c.Config, tok, cmp.Or(on...))
	if err != nil {
		return nil, d.Broken(err)
	}
	m.most, m.notes = c.Most, c.Notes
	return m, d.Load(m.slab)
}

func openTokenizers(dir string, separate bool) (t tokenizers, err error) {
	if !separate {
		t.source, err = text.LoadTokenizer(dir)
		t.target = t.source
		return t, err
	}
	if t.source, err = text.LoadTokenizer(filepath.Join(dir, sourceFolder)); err == nil {
		t.target, err = text.LoadTokenizer(filepath.Join(dir, targetFolder))
	}
	return t, err
}
