package generate

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
)

// Model is a trained language model. It is safe for concurrent use.
type Model struct {
	task.Memory
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

// Config returns the configuration, in which the values that depend on the text are set.
func (m *Model) Config() Config { return m.cfg }

// Slab returns the network's parameters. They must not be changed while the model
// is in use.
func (m *Model) Slab() *tensor.Slab { return m.slab }

// Notes returns no remarks: a language model has none.
func (m *Model) Notes() []string { return nil }

// String describes the network in a few words.
func (m *Model) String() string { return m.cfg.describe() }

// Tokenizer returns the tokenizer. Where tokens are words it is applied line by
// line.
func (m *Model) Tokenizer() *text.Tokenizer { return m.codec.tokens }

// unsaid returns the tokens that are never generated: those that no text holds,
// and those that training never saw.
func (m *Model) unsaid() []int32 {
	var ids []int32
	for i, n := range m.counts {
		if id := int32(i); id != m.codec.end && (n == 0 || id == m.codec.tokens.Vocabulary().UnknownID() || !m.codec.said(id)) {
			ids = append(ids, id)
		}
	}
	return ids
}

// newModel makes an untrained model of a settled configuration.
func newModel(cfg Config, k *codec, counts []int64, on *tensor.Device) (_ *Model, err error) {
	defer tensor.Recover(&err)
	m := &Model{cfg: cfg, codec: k, counts: counts}
	if m.net, err = newNetwork(&m.cfg, len(counts)); err != nil {
		return nil, err
	}
	m.slab = tensor.Pack(on, m.net, cfg.Seed)
	return m, nil
}

// Save writes the model to a directory that [Open] reads. Its errors are those of
// [model.Save].
func (m *Model) Save(dir string) error {
	return model.Save(dir, Name, saved{m.cfg, m.counts}, append(m.Remembered(), model.Weights(m.slab), m.codec.tokens.Part(""))...)
}

// Open reads a model directory. A directory that is missing, damaged or of another
// task is a *model.FileError. The network is put on the device given, by default
// the CPU.
func Open(dir string, on ...*tensor.Device) (*Model, error) {
	return model.OpenAs(dir, OpenDir, on...)
}

// OpenDir is [Open] for a directory that has been read already, with the same
// errors.
func OpenDir(d *model.Dir, on ...*tensor.Device) (_ *Model, err error) {
	defer tensor.Recover(&err)
	var c saved
	if err := d.For(Name, "a language model", &c); err != nil {
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
	m, err := newModel(c.Config, k, c.Counts, cmp.Or(on...))
	if err != nil {
		return nil, d.Broken(err)
	}
	return m, cmp.Or(d.Load(m.slab), m.Recall(d))
}

// check returns an error for a config.json that Save cannot have written.
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
