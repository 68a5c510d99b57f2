package tag

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// Model is a trained tagger. It is safe for concurrent use.
type Model struct {
	task.Memory
	cfg          Config
	vocabularies *vocabularies
	tags         []string // of the network, by number
	net          *network
	slab         *tensor.Slab
	format       string // of the training file: conll, conllu or bmes; "" if not known
	notes        []string
}

// saved is a Model's part of config.json.
type saved struct {
	Config Config   `json:"config"`
	Tags   []string `json:"tags"`
	Format string   `json:"format,omitempty"`
	Notes  []string `json:"notes"`
}

// Config returns the configuration, in which the values that depend on the data are set.
func (m *Model) Config() Config { return m.cfg }

// Slab returns the network's parameters. They must not be changed while the model
// is in use.
func (m *Model) Slab() *tensor.Slab { return m.slab }

// Notes returns remarks on the training, a sentence each: sentences cut, labels
// unseen, vectors read.
func (m *Model) Notes() []string { return slices.Clone(m.notes) }

// String describes the network in a few words.
func (m *Model) String() string { return m.cfg.describe() }

// Labels returns the labels of spans, or of tokens, that the model distinguishes.
func (m *Model) Labels() []string {
	if !m.spans() {
		return slices.Clone(m.tags)
	}
	var labels []string
	for i := 1; i < len(m.tags); i += 4 {
		_, label, _ := split(m.tags[i])
		labels = append(labels, label)
	}
	return labels
}

// Scheme returns how the training file's tags mark spans; [Labels] if they do not.
func (m *Model) Scheme() Scheme { return Scheme(m.cfg.Scheme) }

func (m *Model) spans() bool { return m.Scheme() != Labels }

// newModel makes an untrained model for a settled configuration.
func newModel(cfg Config, v *vocabularies, tags []string, on *tensor.Device) (_ *Model, err error) {
	defer tensor.Recover(&err)
	m := &Model{cfg: cfg, vocabularies: v, tags: tags}
	if m.net, err = newNetwork(&m.cfg, v, tags, m.spans()); err != nil {
		return nil, err
	}
	m.slab = tensor.Pack(on, m.net, cfg.Seed)
	return m, nil
}

// Save writes the model to a directory that [Open] reads. Its errors are those of
// [model.Save].
func (m *Model) Save(dir string) error {
	return model.Save(dir, Name, saved{m.cfg, m.tags, m.format, m.notes}, append(m.Remembered(), model.Weights(m.slab), m.vocabularies.part())...)
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
	if err := d.For(Name, "a tagger", &c); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, d.Broken(err)
	}
	v, err := openVocabularies(d)
	if err != nil {
		return nil, err
	}
	if len(c.Tags) == 0 || slices.ContainsFunc(v.Usual, func(k int32) bool { return k < 0 || int(k) >= len(c.Tags) }) {
		return nil, &model.FileError{File: d.File(vocabularyFile), Problem: "the most frequent tag of a word is not a tag of the model", Fix: "train the model again"}
	}
	m, err := newModel(c.Config, v, c.Tags, cmp.Or(on...))
	if err != nil {
		return nil, d.Broken(err)
	}
	m.format, m.notes = c.Format, c.Notes
	return m, cmp.Or(d.Load(m.slab), m.Recall(d))
}

// check returns an error for a config.json that Save cannot have written.
func (c *saved) check() error {
	if err := c.Config.Validate(); err != nil {
		return err
	}
	scheme := Scheme(c.Config.Scheme)
	if _, spans := schemes[scheme]; !spans && scheme != Labels || c.Config.Chars == "auto" || c.Config.Pairs == "auto" {
		return fmt.Errorf("scheme, chars or pairs are not settled")
	}
	if len(c.Tags) < 1 || len(c.Tags) > 4*maxKinds+1 {
		return fmt.Errorf("expected the tags of a tagger, got %d", len(c.Tags))
	}
	if scheme == Labels {
		return nil
	}
	var labels []string
	for i := 1; i < len(c.Tags); i += 4 {
		_, label, _ := split(c.Tags[i])
		labels = append(labels, label)
	}
	if !slices.Equal(c.Tags, inBIOES(labels)) {
		return fmt.Errorf("expected tags in BIOES, got %q", c.Tags)
	}
	return nil
}

// inferItems is the largest number of padded tokens in a batch.
const inferItems = 1 << 13

// eachBatch calls part with each batch of the pieces of d and its scores
// [rows,steps,tags], which are valid until part returns, and use with the pieces and what
// part returned. The scores do not depend on which pieces share a batch. The context's
// ranks share this as [train.Share] describes.
func eachBatch[T train.Number](ctx context.Context, m *Model, t *tensor.Tape, d *corpus, part func(b *batch, list []int, scores *tensor.Tensor) []T, use func(list []int, result []T)) error {
	var b batch
	batches := train.NewBuckets(d.lengths(), inferItems, 256, 0).InOrder()
	return train.Share(ctx, len(batches), func(_ context.Context, i int) ([]T, error) {
		t.Reset()
		b.load(d, batches[i])
		return part(&b, batches[i], m.net.scores(t, &b)), nil
	}, func(i int, result []T) error {
		use(batches[i], result)
		return nil
	})
}

// eachPiece calls f with each piece of a batch and its scores [n,tags], cut from those of
// the batch [rows,steps,tags].
func (m *Model) eachPiece(d *corpus, list []int, scores []float32, f func(piece int, scores []float32)) {
	k := len(m.tags)
	size := len(scores) / len(list)
	for r, i := range list {
		f(i, scores[r*size:][:d.pieces[i].len()*k])
	}
}

// write returns a sentence's tags in a scheme.
func (m *Model) write(found []int32, scheme Scheme) []string {
	tags := make([]string, len(found))
	for i, id := range found {
		tags[i] = m.tags[id]
	}
	if m.spans() && scheme != BIOES {
		return scheme.Tags(Spans(tags), len(tags))
	}
	return tags
}
