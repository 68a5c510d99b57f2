package tag

import (
	"context"
	"fmt"
	"slices"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
	"github.com/carousel-ml/carousel/train"
)

// Train trains a tagger on the training sentences; the epoch is chosen on the
// validation sentences, if there are any. It keeps sentences as numbers, four bytes
// per token and per tag, in addition to the data, which it does not change.
//
// Invalid settings, and sentences that cannot be learnt from, are a
// *data.InputError; other errors are those of [train.Fit]. If ctx is cancelled
// while the data are prepared, its error is returned; later, the result is marked
// Interrupted, and Dir contains a checkpoint to resume from and the model with
// the best weights so far, which is also returned.
func Train(ctx context.Context, d *Data, cfg Config, run *train.Run) (*Model, *train.Result, error) {
	return task.Fit("tag: Train", d, &cfg, run, func(o *train.Run) (*Model, *train.Result, error) {
		m, learn, valid, err := prepare(ctx, d, cfg, o.Device)
		if err != nil {
			return nil, nil, data.InFile(d.file, err)
		}
		result, err := m.fit(ctx, learn, valid, o)
		return m, result, err
	})
}

// prepare settles the configuration on the sentences and makes the untrained
// model.
func prepare(ctx context.Context, d *Data, cfg Config, on *tensor.Device) (m *Model, learn, valid *corpus, err error) {
	e, err := task.Once(ctx, &d.read, d.key(&cfg), func() (*encoded, error) { return d.encode(ctx, cfg) })
	if err != nil {
		return nil, nil, nil, err
	}
	learn, valid, vectors, given := e.learn, e.valid, e.vectors, cfg.Scheme
	cfg.Scheme = string(e.scheme)
	cfg.settle(learn)
	if vectors != nil {
		cfg.Embedding = vectors.Dim
	}
	if m, err = newModel(cfg, e.vocabularies, e.tags, on); err != nil {
		return nil, nil, nil, err
	}
	if d.file != "" {
		m.format = cfg.reading(true, nil).FormatOf(d.file)
	}
	if tag := lookalike(learn.kinds); tag != "" && e.scheme == Labels && given == "auto" {
		m.notes = append(m.notes, fmt.Sprintf("tags such as %s look like spans but are no BIO tags; scores are of tokens", tag))
	}
	if vectors != nil {
		table := m.net.Words.Weight.Read()
		vectors.Fill(table)
		m.net.Words.Weight.Write(table)
		m.notes = append(m.notes, fmt.Sprintf("pretrained vectors from %s: %s", cfg.Vectors, vectors))
		if note := vectors.Note(); note != "" {
			m.notes = append(m.notes, note)
		}
	}
	m.addNotes(learn, valid)
	return m, learn, valid, nil
}

// encoded is the sentences as numbers, with what numbers them, which trainings share and do not change.
type encoded struct {
	learn, valid *corpus
	scheme       Scheme
	tags         []string
	vocabularies *vocabularies
	vectors      *text.Vectors // nil without Config.Vectors
}

// key has all that decides how sentences are encoded, and which sentences of the data are meant.
func (d *Data) key(c *Config) string {
	return fmt.Sprintf("%p %d %p %d %#v", d.Training, len(d.Training), d.Validation, len(d.Validation),
		[]any{c.PieceLength, c.Scheme, c.FoldCase, c.MinCount, c.VocabularySize, c.Vectors, c.Chars, c.Affixes > 0, c.Pairs})
}

// encode encodes the sentences of training and validation.
func (d *Data) encode(ctx context.Context, cfg Config) (e *encoded, err error) {
	e = &encoded{}
	if e.learn, err = encode(ctx, d.Training, cfg.PieceLength); err != nil {
		return nil, err
	}
	if e.valid, err = encode(ctx, d.Validation, cfg.PieceLength); err != nil {
		return nil, err
	}
	if e.learn.observed == 0 {
		return nil, data.Errorf("there is no tagged sentence to learn from")
	}
	if e.scheme, err = e.learn.settleScheme(Scheme(cfg.Scheme)); err != nil {
		return nil, err
	}
	if e.tags, err = e.learn.tagSet(e.scheme); err != nil {
		return nil, err
	}
	cfg.settle(e.learn)
	e.learn.number(e.tags, e.scheme != Labels)
	e.valid.number(e.tags, e.scheme != Labels)
	e.vocabularies = newVocabularies(e.learn, &cfg)
	if cfg.Vectors != "" {
		if e.vectors, err = text.ReadVectors(ctx, cfg.Vectors, e.vocabularies.Words); err != nil {
			return nil, err
		}
		e.vocabularies.Known = e.vocabularies.Words.Len() // a vector makes a rare word known
	}
	for _, d := range []*corpus{e.learn, e.valid} {
		e.vocabularies.apply(d, &cfg)
	}
	return e, nil
}

// settleScheme returns the scheme given, if the tags mark spans, or the one
// detected from the tags.
func (d *corpus) settleScheme(given Scheme) (Scheme, error) {
	c := &d.schemes
	spans := c.bare+c.labelled > 0
	switch {
	case given == Labels:
		return Labels, nil
	case given != "auto" && (c.labels > 0 || !spans):
		return "", d.oddTag("scheme %s needs tags such as B-PER and O", given)
	case given != "auto":
		return given, nil
	case c.labelled > 0 && c.labels > 0 && c.labelled > c.labels:
		return "", d.oddTag("the other tags mark spans, as B-PER does")
	}
	return c.scheme(), nil
}

func (d *corpus) oddTag(format string, args ...any) error {
	e := &data.InputError{Problem: fmt.Sprintf(format, args...) + ", and no tag is like that"}
	if d.odd != "" {
		e.Line, e.Problem = d.oddLine, fmt.Sprintf("the tag is %q, but "+format, append([]any{d.odd}, args...)...)
	}
	e.Fix = "correct the file, name another column with tag, or set scheme to labels"
	return e
}

// tagSet returns the network's tags: the labels, sorted, or the BIOES tags of the
// spans' labels.
func (d *corpus) tagSet(scheme Scheme) ([]string, error) {
	var list []string
	for _, kind := range d.kinds {
		if scheme == Labels {
			list = append(list, kind)
		} else if letter, label, _ := split(kind); letter != 'O' {
			list = append(list, label)
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	if len(d.kinds) < 2 {
		return nil, data.Errorf("all %d tokens have the tag %q: at least two tags are needed; name the column of the tags with tag if this is not it", len(d.tags), d.kinds[0])
	}
	if scheme != Labels {
		list = inBIOES(list)
	}
	return list, nil
}

// addNotes adds notes on sentences that were cut and on unseen labels.
func (m *Model) addNotes(learn, valid *corpus) {
	if n := learn.cut + valid.cut; n > 0 {
		m.notes = append(m.notes, cutNote(n, m.cfg.PieceLength))
	}
	m.notes = append(m.notes, unseenNote("validation", m.unseen(valid))...)
}

func cutNote(n, limit int) string {
	return fmt.Sprintf("%s longer than %d tokens and read in pieces, cut after a full stop if there is one in the second half", report.Agree(n, "sentence is", "sentences are"), limit)
}

// fit runs the training loop.
func (m *Model) fit(ctx context.Context, learn, valid *corpus, o *train.Run) (*train.Result, error) {
	cfg := &m.cfg
	buckets := train.NewBuckets(learn.lengths(), max(inferItems, cfg.PieceLength), cfg.Batch, cfg.Seed)
	options := cfg.Settings.Options(buckets.Len(), o)
	options.Fingerprint = fingerprint(&m.cfg, learn, valid)
	job := &train.Job[batch]{
		Slab:      m.slab,
		Optimizer: optim.NewAdamW(m.slab, &optim.AdamWOptions{WeightDecay: float32(cfg.WeightDecay)}),
		Samples:   len(learn.pieces),
		Batches:   buckets.Batches,
		NewBatch:  func() *batch { return &batch{} },
		Load:      func(b *batch, samples []int) { b.load(learn, samples) },
		Loss:      m.net.loss,
		Weight:    func(b *batch) float64 { return float64(b.items) },
	}
	if valid.observed > 0 {
		job.Metric, job.Metrics = "-accuracy", []string{"-accuracy", "loss"}
		if m.spans() {
			job.Metric, job.Metrics = "-f1", []string{"-f1", "-precision", "-recall", "loss"}
		}
		job.Validate = func(ctx context.Context, t *tensor.Tape) (map[string]float64, error) {
			return m.validate(ctx, t, valid)
		}
	} else {
		options.Patience = 0
	}
	return train.Fit(ctx, job, options)
}

// validate returns the scores of the network on the validation sentences.
func (m *Model) validate(ctx context.Context, t *tensor.Tape, valid *corpus) (map[string]float64, error) {
	found, loss := make([]int32, len(valid.tokens)), 0.0
	decoder := m.net.decoder(m.tags, m.spans())
	err := eachBatch(ctx, m, t, valid, func(b *batch, list []int, scores *tensor.Tensor) []float64 {
		result := []float64{float64(b.items) * float64(m.net.lossOf(t, b, scores).Item())}
		m.eachPiece(valid, list, scores.Data(), func(_ int, scores []float32) { result = appendTags(result, decoder.Viterbi(scores)) })
		return result
	}, func(list []int, result []float64) {
		loss += result[0]
		result = result[1:]
		for _, i := range list {
			result = takeTags(found, valid.pieces[i], result)
		}
	})
	if err != nil {
		return nil, err
	}
	s := m.score(valid, found, nil)
	loss /= float64(max(1, len(valid.tokens)))
	if !m.spans() {
		return map[string]float64{"accuracy": s.Accuracy, "loss": loss}, nil
	}
	return map[string]float64{"f1": s.F1, "precision": s.Precision, "recall": s.Recall, "loss": loss}, nil
}

// appendTags appends the tags of a piece as ranks send them to each other; takeTags
// copies them to found, and returns the numbers after them.
func appendTags(x []float64, tags []int32) []float64 {
	for _, tag := range tags {
		x = append(x, float64(tag))
	}
	return x
}

func takeTags(found []int32, p piece, x []float64) []float64 {
	for i := range p.len() {
		found[p.from+i] = int32(x[i])
	}
	return x[p.len():]
}

// fingerprint returns a hash of the data and of the settings that change the
// arithmetic.
func fingerprint(cfg *Config, learn, valid *corpus) train.Fingerprint {
	c := *cfg
	c.Settings = c.Fixed()
	f := train.NewFingerprint(c)
	f.AddData("training sentences", learn.fingerprint())
	f.AddData("validation sentences", valid.fingerprint())
	return f
}
