// Package generate trains recurrent language models on text of any kind, scores
// them, and lets them write on.
//
// A [Config] says what a token is and what the network looks like; [Train] makes
// a [Model] of documents; a Model generates ([Model.Generate]), ranks
// continuations ([Model.Score]), is scored itself ([Model.Evaluate]) and lives in
// a directory ([Model.Save], [Open]).
//
// Training cuts the text into streams that are read side by side, a few steps at
// a time, with the state carried from one segment to the next. A document begins
// with a state of zeros.
package generate

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
)

// Task is what the config.json of a model directory says of a language model.
const Task = "generate"

// Model is a trained language model. It is safe for use by several goroutines.
type Model struct {
	cfg    Config
	codec  *codec
	counts []int64 // of the tokens in the training text, by id
	net    *network
	slab   *tensor.Slab
}

// saved is a Model's part of config.json.
type saved struct {
	Config Config  `json:"config"`
	Counts []int64 `json:"counts"`
}

// newModel makes an untrained model of a settled configuration.
func newModel(cfg Config, k *codec, counts []int64, on *tensor.Device) (*Model, error) {
	m := &Model{cfg: cfg, codec: k, counts: counts}
	var err error
	if m.net, err = newNetwork(&m.cfg, len(counts)); err != nil {
		return nil, err
	}
	m.slab = tensor.Pack(on, m.net, cfg.Seed)
	return m, nil
}

// Config is the configuration, with everything that the text settled.
func (m *Model) Config() Config { return m.cfg }

// Slab is the network's parameters.
func (m *Model) Slab() *tensor.Slab { return m.slab }

// Tokenizer is what makes tokens of text. Where units are words it is applied
// line by line.
func (m *Model) Tokenizer() *text.Tokenizer { return m.codec.tokens }

// Describe says in a few words what kind of model it is.
func (m *Model) Describe() string { return m.cfg.describe() }

// Save writes the model to a directory that [Open] reads.
func (m *Model) Save(dir string) error {
	return model.Save(dir, Task, saved{m.cfg, m.counts}, model.Weights(m.slab), m.codec.tokens.Part(""))
}

// Open reads a model directory. What is wrong with it is a *model.FileError. Its
// network lives on the device named, or else on the CPU.
func Open(dir string, on ...*tensor.Device) (*Model, error) {
	return model.OpenAs(dir, OpenDir, on...)
}

// OpenDir is [Open] of a directory that has been read.
func OpenDir(d *model.Dir, on ...*tensor.Device) (*Model, error) {
	var c saved
	if err := d.For(Task, "a language model", &c); err != nil {
		return nil, err
	}
	t, err := text.OpenTokenizer(d, "")
	if err != nil {
		return nil, err
	}
	if err := c.check(t.Vocabulary().Len()); err != nil {
		return nil, d.Broken(err)
	}
	k, err := newCodec(t, c.Config.Tokens)
	if err != nil {
		return nil, d.Broken(err)
	}
	var m *Model
	if shape := tensor.Catch(func() { m, err = newModel(c.Config, k, c.Counts, cmp.Or(on...)) }); shape != nil || err != nil {
		return nil, d.Broken(cmp.Or(shape, err))
	}
	return m, d.Load(m.slab)
}

// check refuses a config.json that no Save wrote.
func (c *saved) check(vocabulary int) error {
	if err := c.Config.Validate(); err != nil {
		return err
	}
	cfg := &c.Config
	switch {
	case cfg.Embedding < 1 || cfg.Output == "auto" || cfg.Softmax == "auto":
		return fmt.Errorf("embedding, output or softmax is not settled")
	case (cfg.Softmax == "adaptive") != (len(cfg.Cutoffs) > 0):
		return fmt.Errorf("cutoffs do not fit the softmax")
	case len(cfg.Cutoffs) > 0 && slices.Max(cfg.Cutoffs) >= vocabulary:
		return fmt.Errorf("cutoffs %v are beyond the vocabulary of %d", cfg.Cutoffs, vocabulary)
	case len(c.Counts) != vocabulary:
		return fmt.Errorf("counts of %d tokens, the vocabulary has %d", len(c.Counts), vocabulary)
	}
	return nil
}
