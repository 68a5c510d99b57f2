package speech

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/nn"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// ClassifyTask is what the config.json of a model directory says of a
// classifier of sounds.
const ClassifyTask = "classify-audio"

// ClassifyConfig is everything that a classifier of sounds, such as of keywords
// or commands, is made from; start from [ClassifyDefaults].
type ClassifyConfig struct {
	Setup
	Label string `json:"label" group:"Data" help:"column of the label"`
	Pool  string `json:"pool" oneof:"max,mean,last" group:"Model" help:"how the steps of a sound become one vector"`
}

// UnmarshalJSON reads a configuration, that of an older model too.
func (c *ClassifyConfig) UnmarshalJSON(raw []byte) error {
	type fields ClassifyConfig
	return settings.Decode(raw, (*fields)(c))
}

// ClassifyDefaults is the configuration that a user starts from: two layers of
// 96 LSTM units in both directions on log-mel bands. Sounds to be told apart are
// short: their own statistics would be noise, so those of the training part
// serve, and loudness and noise are varied instead.
func ClassifyDefaults() ClassifyConfig {
	s := defaultSetup()
	s.Layers, s.Hidden, s.Bidirectional, s.RNNDropout = 2, 96, true, 0.2
	s.Stack, s.Batch, s.LR = 2, 32, 2e-3
	s.Normalize, s.Gain, s.Noise = "global", 6, 15
	return ClassifyConfig{Setup: s, Label: "label", Pool: "max"}
}

var pools = map[string]func(*tensor.Tensor) *tensor.Tensor{"max": tensor.Max, "mean": tensor.Mean, "last": tensor.Last}

// Validate reports the first thing wrong with a configuration, in one line; it
// is a *data.InputError.
func (c *ClassifyConfig) Validate() error {
	return cmp.Or(data.Setting(settings.Check(c)), c.Setup.Validate())
}

// ReadLabelled is [ReadManifest] for a classifier; the label is each
// utterance's Text.
func ReadLabelled(path string, cfg *ClassifyConfig) ([]Utterance, error) {
	list, err := cfg.readManifest(path, cfg.Label, strings.TrimSpace)
	if err != nil {
		return nil, err
	}
	for _, u := range list {
		if cfg.Label != "" && u.Text == "" {
			return nil, &data.InputError{File: path, Line: u.Line, Column: cfg.Label, Problem: "the label is missing", Fix: "every row needs one"}
		}
	}
	return list, nil
}

// Classifier tells which of some labels a sound has. It is safe for use by
// several goroutines.
type Classifier struct {
	ear
	cfg     ClassifyConfig
	classes []string
	net     *classNet
	slab    *tensor.Slab
}

// classNet is recurrent layers, one vector of their steps, and a linear layer.
type classNet struct {
	RNN  *nn.RNN
	Head *nn.Linear

	drop *nn.Dropout
	pool func(*tensor.Tensor) *tensor.Tensor
}

func (n *classNet) forward(x *tensor.Tensor) *tensor.Tensor {
	y, _ := n.RNN.Forward(x, nil)
	return n.Head.Forward(n.drop.Forward(n.pool(y)))
}

// savedClassifier is a Classifier's part of config.json.
type savedClassifier struct {
	Config     ClassifyConfig `json:"config"`
	Classes    []string       `json:"classes"`
	Width      int            `json:"width"`
	Statistics *statistics    `json:"statistics,omitempty"`
}

// Config is the configuration, with everything that the data settled.
func (m *Classifier) Config() ClassifyConfig { return m.cfg }

// Slab is the network's parameters.
func (m *Classifier) Slab() *tensor.Slab { return m.slab }

// Classes are the labels, in alphabetical order.
func (m *Classifier) Classes() []string { return slices.Clone(m.classes) }

func newClassifier(c ClassifyConfig, classes []string, width int, stats *statistics, on *tensor.Device) (*Classifier, error) {
	m := &Classifier{cfg: c, classes: classes}
	m.ear = ear{&m.cfg.Setup, width, stats}
	rnn, err := c.RNNConfig.Build(m.inputs())
	if err != nil {
		return nil, err
	}
	m.net = &classNet{RNN: rnn, Head: nn.NewLinear(rnn.OutputSize(), len(classes), nil), drop: nn.NewDropout(float32(c.Dropout)), pool: pools[c.Pool]}
	m.slab = tensor.Pack(on, m.net, c.Seed)
	return m, nil
}

// TrainClassifier fits a classifier to labelled sounds; files and interrupts
// are as for [Train].
func TrainClassifier(ctx context.Context, list []Utterance, cfg ClassifyConfig, o *TrainOptions) (*Classifier, *train.Result, error) {
	if o == nil {
		o = &TrainOptions{}
	}
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	cfg.settle()
	training, validation, err := cfg.Divide(list)
	if err != nil {
		return nil, nil, err
	}
	var classes []string
	for _, u := range training {
		classes = append(classes, u.Text)
	}
	slices.Sort(classes)
	if classes = slices.Compact(classes); len(classes) < 2 {
		return nil, nil, data.Errorf("all %s have the label %q: two labels are needed", counted(len(training), "utterance", "utterances"), classes[0])
	}
	test := append(ofPart(list, "test"), o.Test...)
	if _, err := labelled(test, classes); err != nil {
		return nil, nil, err
	}
	learn, valid, err := open(&cfg.Setup, training, validation, test, o.Cache)
	if err != nil {
		return nil, nil, err
	}
	cfg.Settle(min(max(100_000/len(training), 15), 100))
	m, err := newClassifier(cfg, classes, learn.width, learn.stats, o.Device)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range []*corpus{learn, valid} {
		c.cfg = m.setup
		if c.labels, err = labelled(c.list, classes); err != nil {
			return nil, nil, err
		}
	}
	result, err := m.fit(ctx, learn, valid, o)
	if err == nil && !result.Interrupted && o.Writes() {
		err = m.Save(o.Dir)
	}
	return m, result, err
}

// labelled is the class of each sound, as a label of one.
func labelled(list []Utterance, classes []string) ([][]int32, error) {
	var labels [][]int32
	for _, u := range list {
		k, ok := slices.BinarySearch(classes, u.Text)
		if !ok {
			return nil, &data.InputError{File: u.File, Line: u.Line, Problem: fmt.Sprintf("label %q is not among those of the training part: %s", u.Text, some(classes))}
		}
		labels = append(labels, []int32{int32(k)})
	}
	return labels, nil
}

func (m *Classifier) fit(ctx context.Context, learn, valid *corpus, o *TrainOptions) (*train.Result, error) {
	f := &fitting{setup: m.setup, slab: m.slab, learn: learn, options: o, outputs: append([]string{m.cfg.Pool}, m.classes...), metric: "loss"}
	f.loss = func(t *tensor.Tape, b *batch) *tensor.Tensor {
		return tensor.CrossEntropy(m.net.forward(b.input(t)), t.IDs(b.labels, nil, len(b.lengths)), nil)
	}
	if len(valid.list) > 0 {
		f.validate = func(ctx context.Context, t *tensor.Tape) (map[string]float64, error) {
			right, loss := 0, 0.0
			err := m.each(ctx, t, valid, func(i int, p []float64) {
				want := int(valid.labels[i][0])
				loss -= math.Log(math.Max(p[want], 1e-30))
				if best(p) == want {
					right++
				}
			})
			n := float64(len(valid.list))
			return map[string]float64{"loss": loss / n, "accuracy": float64(right) / n}, err
		}
	}
	return f.run(ctx)
}

// each gives the probabilities of every sound of a corpus.
func (m *Classifier) each(ctx context.Context, t *tensor.Tape, c *corpus, use func(i int, p []float64)) error {
	b := &batch{}
	for _, samples := range c.batches() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.load(b, samples, false); b.err != nil {
			return b.err
		}
		t.Reset()
		p := tensor.Softmax(m.net.forward(b.input(t)), nil).Data()
		for k, s := range samples {
			row := make([]float64, len(m.classes))
			for i := range row {
				row[i] = float64(p[k*len(row)+i])
			}
			use(s, row)
		}
	}
	return nil
}

func best(p []float64) int {
	k := 0
	for i, v := range p {
		if v > p[k] {
			k = i
		}
	}
	return k
}

// Save writes the classifier to a directory that [OpenClassifier] reads.
func (m *Classifier) Save(dir string) error {
	return model.Save(dir, ClassifyTask, savedClassifier{m.cfg, m.classes, m.width, m.stats}, model.Weights(m.slab))
}

// OpenClassifier reads a model directory. What is wrong with it is a
// *model.FileError. Its network lives on the device named, or else on the CPU.
func OpenClassifier(dir string, on ...*tensor.Device) (*Classifier, error) {
	return model.OpenAs(dir, OpenClassifierDir, on...)
}

// OpenClassifierDir is [OpenClassifier] of a directory that has been read.
func OpenClassifierDir(d *model.Dir, on ...*tensor.Device) (*Classifier, error) {
	var c savedClassifier
	err := d.For(ClassifyTask, "a classifier of sounds", &c)
	if err != nil {
		return nil, err
	}
	e := ear{&c.Config.Setup, c.Width, c.Statistics}
	if err = c.Config.Validate(); err == nil {
		err = e.check()
	}
	if err == nil && (len(c.Classes) < 2 || !slices.IsSorted(c.Classes) || len(slices.Compact(slices.Clone(c.Classes))) < len(c.Classes)) {
		err = fmt.Errorf("classes: want two or more, sorted, each once")
	}
	var m *Classifier
	if err == nil {
		shape := tensor.Catch(func() { m, err = newClassifier(c.Config, c.Classes, c.Width, c.Statistics, cmp.Or(on...)) })
		err = cmp.Or(err, shape)
	}
	if err != nil {
		return nil, d.Broken(err)
	}
	return m, d.Load(m.slab)
}

// SoundClass is a sound with the label it seems to have.
type SoundClass struct {
	File          string    `json:"file"`          // as it was named
	Label         string    `json:"label"`         // the most likely class
	Probability   float64   `json:"probability"`   // of the label
	Probabilities []float64 `json:"probabilities"` // by class
}

// SoundClasses are several of them.
type SoundClasses struct {
	Classes []string     `json:"classes"` // all labels that the model knows
	Files   []SoundClass `json:"files"`   // one a sound, in order
}

// WriteCSV writes file, label, its probability and that of each class.
func (p *SoundClasses) WriteCSV(w io.Writer) error {
	c := csv.NewWriter(w)
	head := []string{"audio", "label", "probability"}
	for _, name := range p.Classes {
		head = append(head, "p("+name+")")
	}
	c.Write(head)
	for _, f := range p.Files {
		row := []string{f.File, f.Label, strconv.FormatFloat(f.Probability, 'f', 6, 64)}
		for _, v := range f.Probabilities {
			row = append(row, strconv.FormatFloat(v, 'f', 6, 64))
		}
		c.Write(row)
	}
	c.Flush()
	return c.Error()
}

// Classify gives the probability of each class for a sound in memory.
func (m *Classifier) Classify(ctx context.Context, s *audio.Sound) ([]float64, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	frames, err := m.framesOf(s)
	if err != nil {
		return nil, err
	}
	x := m.steps(frames)
	t := tensor.NewTape(m.slab.Device(), tensor.Infer)
	p := tensor.Softmax(m.net.forward(t.Input(x, 1, len(x)/m.inputs(), m.inputs())), nil).Data()
	row := make([]float64, len(p))
	for i, v := range p {
		row[i] = float64(v)
	}
	return row, nil
}

// PredictFile classifies the sounds that a manifest lists, which needs no
// labels, or one file.
func (m *Classifier) PredictFile(ctx context.Context, path string) (*SoundClasses, error) {
	list := []Utterance{{Audio: path}}
	if isManifest(path) {
		cfg := m.cfg
		cfg.Label, cfg.Speaker, cfg.SplitColumn = "", "", ""
		var err error
		if list, err = ReadLabelled(path, &cfg); err != nil {
			return nil, err
		}
	}
	c, err := m.corpus(list)
	if err != nil {
		return nil, err
	}
	out := &SoundClasses{Classes: m.Classes(), Files: make([]SoundClass, len(list))}
	return out, m.each(ctx, tensor.NewTape(m.slab.Device(), tensor.Infer), c, func(i int, p []float64) {
		k := best(p)
		out.Files[i] = SoundClass{list[i].Audio, m.classes[k], p[k], p}
	})
}

// ClassEvaluation is how often a classifier is right.
type ClassEvaluation struct {
	Task      string                  `json:"task"`      // the task of the model
	Metrics   ClassMetrics            `json:"metrics"`   // the model's scores
	Baselines map[string]ClassMetrics `json:"baselines"` // majority: the most frequent label, what one gets without listening
	Sounds    int                     `json:"sounds"`    // how many were scored
	Classes   []string                `json:"classes"`   // all labels that the model knows
	Confusion [][]int                 `json:"confusion"` // by label, then by answer
	Wrong     []WrongClass            `json:"-"`         // most certain first
}

// ClassMetrics are shares and the mean of -log of the right label's probability.
type ClassMetrics struct {
	Accuracy float64 `json:"accuracy"`      // share of sounds whose label is right
	Loss     float64 `json:"loss,omitzero"` // mean of -log of the right label's probability; absent of a method that gives none
}

// WrongClass is a sound whose label is another than the answer.
type WrongClass struct {
	Utterance
	Answer      string
	Probability float64
}

// Evaluate scores the classifier on labelled sounds.
func (m *Classifier) Evaluate(ctx context.Context, list []Utterance) (*ClassEvaluation, error) {
	c, err := m.corpus(list)
	if err != nil {
		return nil, err
	}
	if c.labels, err = labelled(list, m.classes); err != nil {
		return nil, err
	}
	n := len(m.classes)
	e := &ClassEvaluation{Task: ClassifyTask, Sounds: len(list), Classes: m.Classes(), Confusion: make([][]int, n)}
	for i := range e.Confusion {
		e.Confusion[i] = make([]int, n)
	}
	right := 0
	err = m.each(ctx, tensor.NewTape(m.slab.Device(), tensor.Infer), c, func(i int, p []float64) {
		want, got := int(c.labels[i][0]), best(p)
		e.Confusion[want][got]++
		e.Metrics.Loss -= math.Log(math.Max(p[want], 1e-30))
		if want == got {
			right++
		} else {
			e.Wrong = append(e.Wrong, WrongClass{list[i], m.classes[got], p[got]})
		}
	})
	if err != nil {
		return nil, err
	}
	most := 0
	for _, row := range e.Confusion {
		said := 0
		for _, k := range row {
			said += k
		}
		most = max(most, said)
	}
	e.Baselines = map[string]ClassMetrics{"majority": {Accuracy: float64(most) / float64(len(list))}}
	e.Metrics.Accuracy = float64(right) / float64(len(list))
	e.Metrics.Loss /= float64(len(list))
	slices.SortStableFunc(e.Wrong, func(a, b WrongClass) int { return cmp.Compare(b.Probability, a.Probability) })
	return e, nil
}
