package transcribe

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/speech"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
)

// Model is a trained speech recogniser. It is safe for concurrent use.
type Model struct {
	task.Memory
	cfg      Config
	alphabet *alphabet
	frontend *speech.Frontend
	net      *speech.Network
	slab     *tensor.Slab
	decoding Decoding
	files    []model.Part // language model and lexicon, for Save
	notes    []string
}

// saved is a Model's part of config.json.
type saved struct {
	Config   Config    `json:"config"`
	Alphabet *alphabet `json:"alphabet"`
	speech.Frontend
	Decoding savedDecoding `json:"decoding"`
	Files    []string      `json:"files,omitempty"` // the files of decoding
	Notes    []string      `json:"notes,omitempty"`
}

// Config returns the configuration, in which the values that depend on the data
// are set.
func (m *Model) Config() Config { return m.cfg }

// Slab returns the network's parameters. They must not be changed while the model
// is in use.
func (m *Model) Slab() *tensor.Slab { return m.slab }

// Notes returns remarks on the training, a sentence each, such as utterances that
// were left out.
func (m *Model) Notes() []string { return slices.Clone(m.notes) }

// Alphabet returns the tokens that the network's classes 1, 2, ... represent;
// class 0 is the blank.
func (m *Model) Alphabet() []string { return slices.Clone(m.alphabet.Units) }

// newModel makes an untrained model for settled settings.
func newModel(c Config, a *alphabet, f *speech.Frontend, on *tensor.Device) (_ *Model, err error) {
	defer tensor.Recover(&err)
	m := &Model{cfg: c, alphabet: a}
	m.frontend = f.With(&m.cfg.Setup)
	if m.net, err = speech.NewNetwork(&m.cfg.Setup, m.frontend.Inputs(), a.classes(), nil); err != nil {
		return nil, err
	}
	m.slab = tensor.Pack(on, m.net, c.Seed)
	return m, nil
}

// Save writes the model, with its language model and lexicon, to a directory that
// [Open] reads. Its errors are those of [model.Save].
func (m *Model) Save(dir string) error {
	c := saved{m.cfg, m.alphabet, *m.frontend, savedDecoding{Decoding: m.decoding}, nil, m.notes}
	for _, p := range m.files {
		c.Files = append(c.Files, p.Name)
	}
	parts := append(m.Remembered(), model.Weights(m.slab))
	if t := m.alphabet.tokenizer; t != nil {
		parts = append(parts, t.Part(""))
	}
	return model.Save(dir, Name, c, append(parts, m.files...)...)
}

// Open reads a model directory. A directory that is missing, damaged or of
// another task is a *model.FileError, a damaged language model or lexicon a
// *data.InputError. The network is put on the device given, by default the CPU.
func Open(dir string, on ...*tensor.Device) (*Model, error) {
	return model.OpenAs(dir, OpenDir, on...)
}

// OpenDir is [Open] for a directory that has been read already, with the same
// errors.
func OpenDir(d *model.Dir, on ...*tensor.Device) (_ *Model, err error) {
	defer tensor.Recover(&err)
	var c saved
	if err := d.For(Name, "a recogniser of speech", &c); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, d.Broken(err)
	}
	var tokenizer *text.Tokenizer
	if c.Alphabet.Kind == "bpe" {
		var err error
		if tokenizer, err = text.OpenTokenizer(d, ""); err != nil {
			return nil, err
		}
	}
	m, err := newModel(c.Config, newAlphabet(c.Alphabet.Kind, c.Alphabet.Units, tokenizer), &c.Frontend, cmp.Or(on...))
	if err != nil {
		return nil, d.Broken(err)
	}
	m.notes = c.Notes
	if err := d.Load(m.slab); err != nil {
		return nil, err
	}
	m.decoding = c.Decoding.Decoding
	for _, name := range c.Files {
		if err := m.openDecoding(d, name); err != nil {
			return nil, err
		}
	}
	if err := m.decoding.check(m.alphabet); err != nil {
		return nil, d.Broken(err)
	}
	return m, m.Recall(d)
}

// check returns an error for a config.json that Save cannot have written.
func (c *saved) check() error {
	if err := c.Config.Validate(); err != nil {
		return err
	}
	if c.Alphabet != nil {
		if kind, older := map[string]string{"characters": "char", "symbols": "space"}[c.Alphabet.Kind]; older {
			c.Alphabet.Kind = kind
		}
	}
	if c.Alphabet == nil || len(c.Alphabet.Units) == 0 || c.Alphabet.Kind != c.Config.Tokens {
		return fmt.Errorf("the alphabet is missing")
	}
	seen := map[string]bool{"": true}
	for i, u := range c.Alphabet.Units {
		if seen[u] {
			return fmt.Errorf("alphabet: token %d, %q, is empty or repeated", i+1, u)
		}
		seen[u] = true
	}
	for _, name := range c.Files {
		if name != lmFile && name != lexiconFile {
			return fmt.Errorf("files: %q is not one that belongs to a model", name)
		}
	}
	return c.With(&c.Config.Setup).Check()
}
