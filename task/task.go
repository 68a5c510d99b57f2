// Package task says what a task is: how its data are read, how a model is
// trained and opened, and what a model can be asked for. Each task is a package
// below this one, and a value, its [Kind]; what works for all tasks (the
// command, carousel.Open, servers, searches) goes by the Kind alone.
//
// A task's package has typed functions, and [New] makes the Kind of them:
//
//	Defaults() Config                                           the settings to begin with
//	Read(ctx, *Files, Config) (*Data, error)                    reads and divides the data, once
//	Train(ctx, *Data, Config, *train.Run) (*Model, *train.Result, error)
//	OpenDir(*model.Dir, ...*tensor.Device) (*Model, error)
//	(*Model).Evaluate(ctx, *Data, Part, *EvaluateOptions) (*Evaluation, error)
//	(*Model).Predict(ctx, Input, *PredictOptions) (*Prediction, error)
//
// Files, Config and the options are structs whose fields are settings with tags
// (json, help, group, range, oneof): flags, recipe files and documentation are
// made from these. Options that do not begin as zeros have a method SetDefaults.
package task

import (
	"context"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// About is what people are told of a task.
type About struct {
	Name    string // of its command, directories and JSON: "classify"
	Was     string // the name in directories of older versions, if another
	Noun    string // a model of the task: "a classifier of texts"
	Title   string // of its page: "Classification of texts"
	Short   string // what its training makes, in one line
	Long    string // the same in full, of lines of up to 80 characters
	Needs   string // flags that its training must have but --out; "" is "--data FILE"
	Example string // command lines of its training

	// Scores and Takes say what evaluate and predict want as --data: "a file of
	// labelled texts", "a file of texts, or - for lines of standard input".
	Scores, Takes string
	// Texts says that predict also takes texts by themselves.
	Texts bool
	// Part is the part of a file that evaluate scores unless told otherwise; "" is All.
	Part Part
}

// Data is what a task's Read makes of files: samples to learn from, to validate
// and to test on. Training changes nothing in it, so that it serves many
// trainings, also at a time.
type Data interface {
	// Has reports whether a part has a sample.
	Has(Part) bool
	// Notes are what is unusual about the files, a sentence each.
	Notes() []string
	// String describes the data in a line.
	String() string
}

// Model is a trained model of a task. It is safe for use by several goroutines.
//
// It may also have these methods, with the types of its task, which [Trained]
// looks for:
//
//	Illustrate(ctx, *Data, *Evaluation) ([]report.Section, error)   further sections of the page of its training
//	Probe(*Data, rows int) (func(*tensor.Tape) *tensor.Tensor, error)   the loss of a batch, to look into the network
//	Stream(ctx, Input, *PredictOptions, io.Writer) (done bool, notes []string, err error)   a prediction written while it is made
//	String() string   the kind of network in a few words
//	Wants() *W   the data it wants, of any struct W; inspect prints its fields
//	Title() string   of the page of its training, if not that of the task
//	ExportONNX(path string) (*graph.Parity, error)   writes the model as an ONNX graph, compared with the model
type Model interface {
	// Notes are what a user might not expect of the model, a sentence each.
	Notes() []string
	// Slab is the network's parameters.
	Slab() *tensor.Slab
	// Save writes the model to a directory.
	Save(dir string) error
}

// Evaluation is a model's scores on data. Its fields are its JSON.
type Evaluation interface {
	// Summary is the evaluation for people.
	Summary() *report.Summary
}

// Prediction is what a model makes of an input. Its fields are its JSON. What to
// know of it, a sentence each, is given by a method Remarks() []string.
type Prediction interface {
	// Write writes it as a file: a table in CSV, or lines.
	Write(w io.Writer) error
	// Print writes it for people.
	Print(w io.Writer)
}

// Input is what a model predicts from: a file, a stream or texts.
type Input struct {
	File   string    // path of a file of the kind the model was trained on
	Stream io.Reader // lines of text, where File is ""
	Texts  []string  // or the texts themselves
}

// Lines are the lines of the file or stream, or the texts as lines. What is
// wrong with the file is a *data.InputError.
func (in Input) Lines(encoding string) (*data.LineReader, error) {
	switch {
	case in.File != "":
		return data.OpenLines(in.File, encoding)
	case in.Stream != nil:
		return data.NewLineReader("standard input", in.Stream, encoding)
	}
	return data.NewLineReader("input", newTexts(in.Texts), encoding)
}

// EachText are the texts themselves, or the lines of the file or stream that
// are not blank. What is wrong with a line is a *data.InputError.
func (in Input) EachText(encoding string) ([]string, error) {
	if in.File == "" && in.Stream == nil {
		return in.Texts, nil
	}
	r, err := in.Lines(encoding)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var texts []string
	for {
		line, err := r.Next()
		if err == io.EOF {
			return texts, nil
		}
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(line) != "" {
			texts = append(texts, line)
		}
	}
}

// Config is the settings of a task: a pointer to a struct with tags. With a method
// ForFiles(*F), where F is the task's files, it completes settings by the names of
// the files before it is validated.
type Config interface {
	// Validate reports the first thing wrong with the settings; it is a
	// *data.InputError.
	Validate() error
}

// Inheritor is options that begin with what the model has, where the user gives
// nothing.
type Inheritor interface {
	// Inherit sets the options to the model's own. given reports whether the user
	// gives a setting, by its name in JSON; those are set afterwards.
	Inherit(m Model, given func(name string) bool)
}

// Kind is a task as a value, made by [New]. Its functions turn a programmer's
// panic into an error with the operation and the shapes (*tensor.ShapeError).
type Kind struct {
	About

	// Files and Config make pointers to the structs of a training's files and
	// settings, at their defaults; Evaluating and Predicting of the options of
	// evaluate and predict.
	Files, Evaluating, Predicting func() any
	Config                        func() Config

	// Evaluation and Prediction are empty ones, whose types say what their JSON is;
	// Wants likewise what the method Wants points to, nil where the model has none.
	Evaluation, Prediction, Wants any

	read     func(ctx context.Context, files any, cfg Config) (Data, error)
	train    func(ctx context.Context, d Data, cfg Config, run *train.Run) (*Trained, *train.Result, error)
	open     func(d *model.Dir, on ...*tensor.Device) (*Trained, error)
	evaluate func(ctx context.Context, m Model, d Data, part Part, options any) (Evaluation, error)
	predict  func(ctx context.Context, m Model, in Input, options any) (Prediction, error)

	illustrate func(ctx context.Context, m Model, d Data, e Evaluation) ([]report.Section, error)
	probe      func(m Model, d Data, rows int) (func(*tensor.Tape) *tensor.Tensor, error)
	stream     func(ctx context.Context, m Model, in Input, options any, w io.Writer) (bool, []string, error)
	settings   func(m Model) Config
	forFiles   func(files any, cfg Config)
}

// New is the Kind of a task with files F, settings C, data D, models M, options
// of evaluations EO, evaluations E, options of predictions PO and predictions P.
func New[F, C any, D Data, M interface {
	Model
	Config() C
}, EO any, E Evaluation, PO any, P Prediction, PC interface {
	*C
	Config
}](
	about About,
	defaults func() C,
	read func(context.Context, *F, C) (D, error),
	fit func(context.Context, D, C, *train.Run) (M, *train.Result, error),
	open func(*model.Dir, ...*tensor.Device) (M, error),
	evaluate func(M, context.Context, D, Part, *EO) (E, error),
	predict func(M, context.Context, Input, *PO) (P, error),
) *Kind {
	var (
		noEvaluation E
		noPrediction P
	)
	k := &Kind{
		About:      about,
		Files:      func() any { return new(F) },
		Evaluating: begin[EO],
		Predicting: begin[PO],
		Config:     func() Config { c := defaults(); return PC(&c) },
		Evaluation: noEvaluation, Prediction: noPrediction,
	}
	k.read = func(ctx context.Context, files any, cfg Config) (Data, error) {
		return some[Data](read(ctx, files.(*F), *cfg.(PC)))
	}
	k.train = func(ctx context.Context, d Data, cfg Config, run *train.Run) (*Trained, *train.Result, error) {
		m, result, err := fit(ctx, d.(D), *cfg.(PC), run)
		if err != nil {
			return nil, nil, err
		}
		return &Trained{Model: m, Kind: k}, result, nil
	}
	k.open = func(d *model.Dir, on ...*tensor.Device) (*Trained, error) {
		m, err := open(d, on...)
		if err != nil {
			return nil, err
		}
		return &Trained{Model: m, Kind: k}, nil
	}
	k.evaluate = func(ctx context.Context, m Model, d Data, part Part, options any) (Evaluation, error) {
		o, _ := options.(*EO)
		return some[Evaluation](evaluate(m.(M), ctx, d.(D), part, o))
	}
	k.predict = func(ctx context.Context, m Model, in Input, options any) (Prediction, error) {
		o, _ := options.(*PO)
		p, err := predict(m.(M), ctx, in, o)
		if reflect.ValueOf(p).IsZero() {
			return nil, err
		}
		return p, err
	}
	k.settings = func(m Model) Config { c := m.(M).Config(); return PC(&c) }

	type illustrator interface {
		Illustrate(context.Context, D, E) ([]report.Section, error)
	}
	type prober interface {
		Probe(D, int) (func(*tensor.Tape) *tensor.Tensor, error)
	}
	type streamer interface {
		Stream(context.Context, Input, *PO, io.Writer) (bool, []string, error)
	}
	if w, ok := reflect.TypeFor[M]().MethodByName("Wants"); ok {
		k.Wants = reflect.Zero(w.Type.Out(0).Elem()).Interface()
	}
	if _, ok := any(PC(nil)).(interface{ ForFiles(*F) }); ok {
		k.forFiles = func(files any, cfg Config) { cfg.(interface{ ForFiles(*F) }).ForFiles(files.(*F)) }
	}
	var m M
	if _, ok := any(m).(illustrator); ok {
		k.illustrate = func(ctx context.Context, m Model, d Data, e Evaluation) ([]report.Section, error) {
			own, _ := e.(E)
			return m.(illustrator).Illustrate(ctx, d.(D), own)
		}
	}
	if _, ok := any(m).(prober); ok {
		k.probe = func(m Model, d Data, rows int) (func(*tensor.Tape) *tensor.Tensor, error) {
			return m.(prober).Probe(d.(D), rows)
		}
	}
	if _, ok := any(m).(streamer); ok {
		k.stream = func(ctx context.Context, m Model, in Input, options any, w io.Writer) (bool, []string, error) {
			o, _ := options.(*PO)
			return m.(streamer).Stream(ctx, in, o, w)
		}
	}
	return k
}

// begin makes options at their defaults: zeros, unless they have a method SetDefaults.
func begin[O any]() any {
	o := any(new(O))
	if one, ok := o.(interface{ SetDefaults() }); ok {
		one.SetDefaults()
	}
	return o
}

// some is v as the interface I, which is nil where there is an error.
func some[I, T any](v T, err error) (I, error) {
	if err != nil {
		var none I
		return none, err
	}
	return any(v).(I), nil
}

// guard runs f, and gives a programmer's mistake in it as an error.
func guard[A any](f func() (A, error)) (a A, err error) {
	if caught := tensor.Catch(func() { a, err = f() }); caught != nil {
		err = caught
	}
	return a, err
}

// ForFiles completes settings by the names of the files, where the task has such;
// both are pointers as Files and Config make them.
func (k *Kind) ForFiles(files any, cfg Config) {
	if k.forFiles != nil {
		k.forFiles(files, cfg)
	}
}

// Read reads the files and divides them as the settings say; both are pointers
// as Files and Config make them. What is wrong with a file is a *data.InputError
// that names it.
func (k *Kind) Read(ctx context.Context, files any, cfg Config) (Data, error) {
	return guard(func() (Data, error) { return k.read(ctx, files, cfg) })
}

// Train trains a model on data that Read has read with the same settings of
// group "Data". A run that ctx ends leaves a checkpoint, and its result is marked
// Interrupted.
func (k *Kind) Train(ctx context.Context, d Data, cfg Config, run *train.Run) (m *Trained, r *train.Result, err error) {
	m, err = guard(func() (*Trained, error) {
		var fault error
		m, r, fault = k.train(ctx, d, cfg, run)
		return m, fault
	})
	return m, r, err
}

// Open makes the model of a directory that has been read; on the CPU, or the
// device named. What is wrong with it is a *model.FileError.
func (k *Kind) Open(d *model.Dir, on ...*tensor.Device) (*Trained, error) {
	return guard(func() (*Trained, error) { return k.open(d, on...) })
}

// Is reports whether a directory's task is this one.
func (k *Kind) Is(d *model.Dir) bool { return d.Task == k.Name || k.Was != "" && d.Task == k.Was }

// Trained is a model of any task, with the task. A type switch on Model gives
// the task's own methods.
type Trained struct {
	Model
	Kind *Kind
}

// Settings are the model's settings, with everything that the data determined.
func (m *Trained) Settings() Config { return m.Kind.settings(m.Model) }

// Read reads files of which a part is to be scored, as the model's settings say.
func (m *Trained) Read(ctx context.Context, files any, part Part) (Data, error) {
	cfg := m.Settings()
	if c, ok := cfg.(interface{ ForPart(Part) error }); ok {
		if err := c.ForPart(part); err != nil {
			return nil, err
		}
	}
	return m.Kind.Read(ctx, files, cfg)
}

// Evaluate scores the model on a part of data, beside simple methods. options is
// a pointer as Kind.Evaluating makes it, or nil.
func (m *Trained) Evaluate(ctx context.Context, d Data, part Part, options any) (Evaluation, error) {
	if !d.Has(part) {
		return nil, data.Errorf("there is nothing to score in the part %q of the data", part)
	}
	return guard(func() (Evaluation, error) { return m.Kind.evaluate(ctx, m.Model, d, part, options) })
}

// Predict predicts from an input. options is a pointer as Kind.Predicting makes
// it, or nil. Of inputs that are several files there may be both a prediction
// and an error, which names the files left out.
func (m *Trained) Predict(ctx context.Context, in Input, options any) (Prediction, error) {
	p, err := guard(func() (Prediction, error) { return m.Kind.predict(ctx, m.Model, in, options) })
	return p, data.InFile(in.File, err)
}

// Stream writes a prediction while it is made, if the task can do that with such
// an input; else done is false and nothing is written.
func (m *Trained) Stream(ctx context.Context, in Input, options any, w io.Writer) (done bool, notes []string, err error) {
	if m.Kind.stream == nil {
		return false, nil, nil
	}
	done, err = guard(func() (bool, error) {
		var fault error
		done, notes, fault = m.Kind.stream(ctx, m.Model, in, options, w)
		return done, fault
	})
	return done, notes, err
}

// Illustrate makes the sections that the page of a training has beside the
// evaluation's, which may be nil.
func (m *Trained) Illustrate(ctx context.Context, d Data, e Evaluation) ([]report.Section, error) {
	if m.Kind.illustrate == nil {
		return nil, nil
	}
	return guard(func() ([]report.Section, error) { return m.Kind.illustrate(ctx, m.Model, d, e) })
}

// Wants is the data that the model wants, a pointer to a struct as Kind.Wants is
// one; nil where the task does not say.
func (m *Trained) Wants() any {
	if m.Kind.Wants == nil {
		return nil
	}
	return reflect.ValueOf(m.Model).MethodByName("Wants").Call(nil)[0].Interface()
}

// Title is the title of the page of the model's training.
func (m *Trained) Title() string {
	if own, ok := m.Model.(interface{ Title() string }); ok {
		return own.Title()
	}
	return m.Kind.Title
}

// Probe makes the loss of a batch of about rows samples of all data, on a tape in
// Train mode. It is an error where the task has none.
func (m *Trained) Probe(d Data, rows int) (func(*tensor.Tape) *tensor.Tensor, error) {
	if m.Kind.probe == nil {
		return nil, fmt.Errorf("a model for task %q cannot be looked into", m.Kind.Name)
	}
	return guard(func() (func(*tensor.Tape) *tensor.Tensor, error) { return m.Kind.probe(m.Model, d, rows) })
}

// CanProbe reports whether the task has a Probe.
func (k *Kind) CanProbe() bool { return k.probe != nil }
