package classify

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/optim"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/text"
	"github.com/carousel-ml/carousel/train"
)

// Train trains a classifier on the training texts; the epoch and the share of the
// linear method are chosen on the validation texts, if there are any. It keeps
// texts as token ids, four bytes per token, in addition to the data, which it
// does not change.
//
// Invalid settings, texts that cannot be learnt from and a file of vectors that
// cannot be read are a *data.InputError; other errors are those of [train.Fit]
// and [Model.Save]. If ctx is cancelled while the data are prepared, its error is
// returned; later, the result is marked Interrupted, and Dir contains a
// checkpoint to resume from and the model with the best weights so far, which is
// also returned.
func Train(ctx context.Context, d *Data, cfg Config, run *train.Run) (*Model, *train.Result, error) {
	return task.Fit("classify: Train", d, &cfg, run, func(o *train.Run) (*Model, *train.Result, error) {
		m, learn, valid, err := prepare(ctx, d, cfg, o.Device)
		if err != nil {
			return nil, nil, data.InFile(d.file, err)
		}
		// It does not depend on the network, so that trainings on the same data share it.
		m.linear, err = task.Once(ctx, &d.read, fmt.Sprint("linear method ", d.textKey(&cfg), m.several(), cfg.Seed), func() (*linear, error) {
			return fitLinear(ctx, learn, valid, len(m.classes), m.several(), cfg.Seed)
		})
		if err != nil {
			return nil, nil, err
		}
		result, err := m.fit(ctx, learn, valid, o)
		if err != nil || !result.Trained() {
			return m, result, err
		}
		if cfg.Linear {
			if err := m.fitShare(task.Finishing(ctx, o, result), valid); err != nil {
				return nil, nil, err
			}
		}
		return m, result, nil
	})
}

// prepare settles the configuration on the texts and makes the untrained model.
func prepare(ctx context.Context, d *Data, cfg Config, on *tensor.Device) (m *Model, learn, valid *corpus, err error) {
	texts := d.Of(task.Training)
	counts, err := countLabels(texts)
	if err != nil {
		return nil, nil, nil, err
	}
	names := sortedLabels(counts)
	if len(names) < 2 {
		return nil, nil, nil, oneClass(names, len(texts))
	}
	classes := make([]int, len(names))
	for k, name := range names {
		classes[k] = counts[name]
	}
	cfg.settle(len(texts))
	r, err := task.Once(ctx, &d.read, d.textKey(&cfg), func() (*encoded, error) { return d.encode(ctx, &cfg, numbers(names)) })
	if err != nil {
		return nil, nil, nil, err
	}
	tok, learn, valid := r.tokenizer, r.learn, r.valid
	var vectors *text.Vectors
	if cfg.Vectors != "" {
		if vectors, err = text.ReadVectors(ctx, cfg.Vectors, tok.Vocabulary()); err != nil {
			return nil, nil, nil, err
		}
		cfg.Embedding = vectors.Dim
	}
	if m, err = newModel(cfg, names, classes, tok, on); err != nil {
		return nil, nil, nil, err
	}
	if vectors != nil {
		m.startAt(vectors)
	}
	m.addNotes(learn, valid)
	return m, learn, valid, nil
}

// encoded is the texts as tokens, which trainings share and do not change.
type encoded struct {
	tokenizer    *text.Tokenizer
	learn, valid *corpus
}

// textKey has all that decides how texts are encoded, and which texts of the data are meant.
func (d *Data) textKey(c *Config) string {
	learn, valid := d.Of(task.Training), d.Of(task.Validation)
	return fmt.Sprintf("%p %d %p %d %q", learn, len(learn), valid, len(valid), []any{c.Tokens, c.Segmenter, c.Case, c.MinCount, c.VocabularySize, c.Truncate})
}

// encode trains the tokenizer and encodes the texts of training and validation.
func (d *Data) encode(ctx context.Context, cfg *Config, number map[string]int32) (*encoded, error) {
	texts := d.Of(task.Training)
	segmenters, err := text.OpenSegmenters(cfg.Segmenter)
	if err != nil {
		return nil, err
	}
	r := &encoded{}
	r.tokenizer, err = text.TrainTokenizer(ctx, cfg.Tokens, textsOf(texts), &text.TokenizerOptions{
		VocabularySize: cfg.VocabularySize, MinCount: cfg.MinCount, Lowercase: cfg.Case == "lower", Segmenters: segmenters,
	})
	if err != nil {
		return nil, err
	}
	r.learn, r.valid = encode(ctx, texts, r.tokenizer, cfg.Truncate, number), encode(ctx, d.Of(task.Validation), r.tokenizer, cfg.Truncate, number)
	return r, ctx.Err()
}

// numbers returns the class numbers by label.
func numbers(classes []string) map[string]int32 {
	number := map[string]int32{}
	for k, name := range classes {
		number[name] = int32(k)
	}
	return number
}

func oneClass(names []string, texts int) error {
	if len(names) == 0 {
		return data.Errorf("%s and no label: there is nothing to learn", report.Plural(texts, "text"))
	}
	return data.Errorf("all %d texts have the label %q: at least two labels are needed; name the column of the labels if this is not it", texts, names[0])
}

// startAt writes pretrained vectors into the embedding, which has their size.
func (m *Model) startAt(v *text.Vectors) {
	table := m.net.Embedding.Weight.Read()
	v.Fill(table)
	m.net.Embedding.Weight.Write(table)
	m.notes = append(m.notes, "pretrained vectors: "+v.String())
	if note := v.Note(); note != "" {
		m.notes = append(m.notes, note)
	}
}

// addNotes adds notes on texts that were cut and on unseen labels.
func (m *Model) addNotes(learn, valid *corpus) {
	m.notes = append(m.notes, m.cutNote(learn.cut+valid.cut)...)
	m.notes = append(m.notes, unseenNote("validation", valid.unseen)...)
}

// cutNote returns a note on n texts that were too long.
func (m *Model) cutNote(n int) []string {
	if n == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%s longer than %d tokens and cut there", report.Agree(n, "text is", "texts are"), m.cfg.Truncate)}
}

// unseenNote returns a note on labels that do not occur in training.
func unseenNote(where string, unseen map[string]int) []string {
	if len(unseen) == 0 {
		return nil
	}
	names := sortedLabels(unseen)
	n := 0
	for _, name := range names {
		n += unseen[name]
	}
	for i, name := range names {
		names[i] = strconv.Quote(name)
	}
	return []string{fmt.Sprintf("%s: %s with a label that does not occur in training (%s)", where, report.Plural(n, "text"), report.Listing(names))}
}

// fit runs the training loop.
func (m *Model) fit(ctx context.Context, learn, valid *corpus, o *train.Run) (*train.Result, error) {
	cfg := &m.cfg
	buckets := train.NewBuckets(learn.lengths(), max(inferItems, cfg.Truncate), cfg.Batch, cfg.Seed)
	options := cfg.Settings.Options(buckets.Len(), o)
	options.Fingerprint = fingerprint(cfg, learn, valid)
	pad, weight := m.tokenizer.Vocabulary().PadID(), m.classWeights()
	job := &train.Job[batch]{
		Slab:      m.slab,
		Optimizer: optim.NewAdamW(m.slab, &optim.AdamWOptions{WeightDecay: float32(cfg.WeightDecay)}),
		Samples:   learn.len(),
		Batches:   buckets.Batches,
		NewBatch:  func() *batch { return &batch{weight: weight} },
		Load: func(b *batch, samples []int) {
			b.load(learn, samples, pad)
			b.loadLabels(learn, samples, len(m.classes), m.several())
		},
		Loss: m.net.loss,
	}
	if hasLabels(valid) {
		job.Metric, job.Metrics = "-accuracy", []string{"-accuracy", "-macro_f1", "loss"}
		job.Validate = func(ctx context.Context, t *tensor.Tape) (map[string]float64, error) {
			p, err := m.logProbabilities(ctx, t, valid)
			if err != nil {
				return nil, err
			}
			s := score(p, valid, len(m.classes), m.several())
			return map[string]float64{"accuracy": s.Accuracy, "macro_f1": s.MacroF1, "loss": meanLoss(p, valid.labels, m.several())}, nil
		}
	} else {
		options.Patience = 0
	}
	return train.Fit(ctx, job, options)
}

func hasLabels(c *corpus) bool {
	return slices.ContainsFunc(c.labels, func(list []int32) bool { return len(list) > 0 })
}

// classWeights returns weights with which all classes count the same: texts /
// (classes · texts of the class).
func (m *Model) classWeights() []float32 {
	if m.cfg.ClassWeights != "balanced" {
		return nil
	}
	total := 0
	for _, n := range m.counts {
		total += n
	}
	w := make([]float32, len(m.counts))
	for k, n := range m.counts {
		w[k] = float32(total) / float32(len(m.counts)*n)
	}
	return w
}

// fitShare sets the share of the linear method that has the least loss on the
// validation texts.
func (m *Model) fitShare(ctx context.Context, valid *corpus) error {
	if !hasLabels(valid) {
		return nil
	}
	p, err := m.logProbabilities(ctx, tensor.NewTape(m.slab.Device(), tensor.Infer), valid)
	if err != nil {
		return err
	}
	q := m.linear.logProbabilities(valid)
	mixed := make([][]float64, len(p))
	least := math.Inf(1)
	for step := range 20 {
		share := float64(step) / 20
		for i := range p {
			mixed[i] = mix(p[i], q[i], share)
		}
		if loss := meanLoss(mixed, valid.labels, m.several()); loss < least {
			least, m.share = loss, share
		}
	}
	return nil
}

// fingerprint returns a hash of the data and of the settings that change the
// arithmetic.
func fingerprint(cfg *Config, learn, valid *corpus) train.Fingerprint {
	c := *cfg
	c.Settings = c.Fixed()
	f := train.NewFingerprint(c)
	f.AddData("training texts", learn.fingerprint())
	f.AddData("validation texts", valid.fingerprint())
	return f
}
