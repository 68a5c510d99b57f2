// Package task defines what a task is: how its data are read, how a model is
// trained and opened, and what a model can compute. Each task has a package below
// this one and a value of type [Kind]. The command, carousel.Open, servers and
// searches use only the Kind, so they work with every task.
//
// A task's package has these functions and methods, from which [New] makes the
// Kind:
//
//	Defaults() Config                                           the settings to start from
//	Read(ctx, *Files, Config) (*Data, error)                    reads and divides the data
//	Train(ctx, *Data, Config, *train.Run) (*Model, *train.Result, error)
//	OpenDir(*model.Dir, ...*tensor.Device) (*Model, error)
//	(*Model).Evaluate(ctx, *Data, Part, *EvaluateOptions) (*Evaluation, error)
//	(*Model).Predict(ctx, Input, *PredictOptions) (*Prediction, error)
//
// Train is written with [Fit], which has what every training begins and ends with.
// Data embeds [Parts], Model a [Memory], by which evaluations leave out what the model
// was trained on, and Evaluation [Scored].
//
// Files, Config and the options are structs whose fields are settings with tags
// (json, help, group, range, oneof); flags, recipe files and documentation are
// derived from the tags. Options whose defaults are not all zero have a method
// SetDefaults.
package task

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"strings"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/tensor"
	"github.com/carousel-ml/carousel/train"
)

// About describes a task to users.
type About struct {
	Name    string // in commands, model directories and JSON: "classify"
	Was     string // its name in directories of older versions; "" if the same
	Noun    string // for a model of the task: "a classifier of texts"
	Title   string // of its report: "Classification of texts"
	Short   string // what training does, in one line
	Long    string // the same in full, in lines of at most 80 characters
	Needs   string // flags that training requires, other than --out; "" is "--data FILE"
	Example string // command lines for training

	// Scores and Takes describe the --data of evaluate and predict: "a file of
	// labelled texts", "a file of texts, or - for lines of standard input".
	Scores, Takes string
	// Texts reports whether predict also accepts texts as flags, and Stream whether
	// it accepts a stream, such as standard input. Texts implies Stream.
	Texts, Stream bool
	// Form is the form of the input that a server takes; "": texts if predict accepts them.
	Form Form
	// Part is the part of the data that a model without a [Memory] is scored on by
	// default; "" is All.
	Part Part
}

// Data is the result of a task's Read: samples to train, validate and test on.
// Training does not change it, so several trainings may use it, also at the same
// time. A type that embeds [Parts] is divided anew by a model's [Memory], with the
// methods Remember and Recognise. A method Hints() []string, if there is one, returns
// what a training was not told and might be, a sentence each.
type Data interface {
	// Has reports whether a part has at least one sample.
	Has(Part) bool
	// Notes returns what is unusual about the files, a sentence each.
	Notes() []string
	// String describes the data in one line.
	String() string
}

// Model is a trained model of a task. It is safe for concurrent use.
//
// It may also have these methods, with the types of its task, which [Trained]
// looks for:
//
//	Illustrate(ctx, *Data, *Evaluation) ([]report.Section, error)   further sections for the report of its training
//	Remembers() bool; Recognise(ctx, Data) error   of an embedded [Memory]
//	Probe(ctx, *Data, rows int) (func(*tensor.Tape) *tensor.Tensor, error)   the loss of a batch, for explain gradients
//	Tally(ctx, *Data, Part, *EvaluateOptions) (*Tally, error)   the main figure of Evaluate by row, to compare models
//	Parts(ctx, Input, *PredictOptions) iter.Seq2[P, error]   a prediction in parts while it is computed, as [Trained.Parts] describes
//	String() string   the kind of network in a few words
//	Wants() *W   the data it needs, of any struct W; inspect prints its fields
//	Slabs() []*tensor.Slab   the parameters of all its networks, of like shapes, if there are more than Slab's; that one is the first
//	Title() string   of the report of its training, if not the task's
//	Serves() (*Service, error)   how a server offers the model
//	ExportONNX(ctx, path string) (*graph.Parity, error)   writes the model as an ONNX graph and compares the two
type Model interface {
	// Notes returns what a user might not expect of the model, a sentence each.
	Notes() []string
	// Slab returns the network's parameters. They must not be changed while the
	// model is in use.
	Slab() *tensor.Slab
	// Save writes the model to a directory, with the errors of model.Save.
	Save(dir string) error
}

// Evaluation is the scores of a model on data. It is written as JSON by its
// fields.
type Evaluation interface {
	// Summary returns the evaluation as tables, figures and sentences.
	Summary() *report.Summary
}

// Prediction is the output of a model for an input. It is written as JSON by its
// fields. If there are remarks on it, a method Remarks() []string returns them, a
// sentence each.
type Prediction interface {
	// Write writes the prediction as a CSV table or as lines. Its errors are those
	// of w.
	Write(w io.Writer) error
	// Print writes the prediction in a form for people. Errors of w are ignored.
	Print(w io.Writer)
}

// Input is the input of a prediction: a file, a stream or texts. A server also has tables
// and sounds in memory, where the task takes that form.
type Input struct {
	File    string    // path of a file in the format that the model was trained on; "" if none
	Stream  io.Reader // lines of text, or a table; used if File is ""
	Texts   []string  // the texts, used if File is "" and Stream is nil
	Numbers []int     // of the texts, where these are not 1, 2 and so on: their lines, and what draws at random depends on
	Table   []Column  // a table, whose columns have as many rows
	Sounds  []Sound
	Samples []float32 // of a sound, full scale is -1 to 1: the next part of a [Stream]
	Rate    int       // samples per second

	kept *kept // what File or Stream, which can be read only once, held
}

// Lines returns a reader of the lines of the file or stream, or of the texts as
// lines. encoding is as for data.OpenLines. A file that cannot be opened and an
// unknown encoding are a *data.InputError.
func (in Input) Lines(encoding string) (*data.LineReader, error) {
	switch {
	case in.File != "":
		return data.OpenLines(in.File, encoding)
	case in.Stream != nil:
		return data.NewLineReader("standard input", in.Stream, encoding)
	}
	return data.NewLineReader("input", newTexts(in.Texts), encoding)
}

// EachLine iterates over the texts, or the lines of the file or stream, also blank
// ones, so that the number of a text is that of its line. note, which may be nil, is
// called at the end with what was unusual about the lines. A file or line that cannot be
// read is a *data.InputError, which ends the iteration.
func (in Input) EachLine(encoding string, note func(string)) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if in.File == "" && in.Stream == nil {
			for _, s := range in.Texts {
				if !yield(s, nil) {
					return
				}
			}
			return
		}
		r, err := in.Lines(encoding)
		if err != nil {
			yield("", err)
			return
		}
		defer r.Close()
		for {
			line, err := r.Next()
			if err == io.EOF {
				if unusual := r.Note(); unusual != "" && note != nil {
					note(unusual)
				}
				return
			}
			if !yield(line, err) || err != nil {
				return
			}
		}
	}
}

// EachText returns what [Input.EachLine] iterates over.
func (in Input) EachText(encoding string, note func(string)) ([]string, error) {
	return Collect(context.Background(), in.EachLine(encoding, note))
}

// Config is the settings of a task: a pointer to a struct with tags. A method
// ForFiles(*F), where F is the task's files, completes settings from the names of
// the files before the settings are validated.
type Config interface {
	// Validate returns the first invalid setting as a *data.InputError, or nil.
	Validate() error
}

// Inheritor is options whose defaults are taken from the model.
type Inheritor interface {
	// Inherit sets the options to those of the model. given reports whether the
	// user sets a setting, by its name in JSON; these are set afterwards.
	Inherit(m Model, given func(name string) bool)
}

// Rereader is options that say how a model's files are read, where that differs
// from the files of its training.
type Rereader interface {
	// ForReading changes a copy of the model's settings to those for reading.
	// Settings that the model cannot use are a *data.InputError.
	ForReading(cfg Config) error
}

// Kind is a task as a value, made by [New]. Its functions return a panic with a
// *tensor.ShapeError, which names an operation and its shapes, as an error.
type Kind struct {
	About

	// Files and Config return pointers to new files and settings of a training,
	// at their defaults; Evaluating and Predicting return pointers to new options
	// of evaluate and predict.
	Files, Evaluating, Predicting func() any
	Config                        func() Config

	// Evaluation and Prediction are zero values, whose types define the JSON that
	// is written. Wants is a zero value of the type that the model's method Wants
	// points to; nil if the model has no such method.
	Evaluation, Prediction, Wants any

	read     func(ctx context.Context, files any, cfg Config) (Data, error)
	train    func(ctx context.Context, d Data, cfg Config, run *train.Run) (*Trained, *train.Result, error)
	open     func(d *model.Dir, on ...*tensor.Device) (*Trained, error)
	evaluate func(ctx context.Context, m Model, d Data, part Part, options any) (Evaluation, error)
	predict  func(ctx context.Context, m Model, in Input, options any) (Prediction, error)

	illustrate func(ctx context.Context, m Model, d Data, e Evaluation) ([]report.Section, error)
	probe      func(ctx context.Context, m Model, d Data, rows int) (func(*tensor.Tape) *tensor.Tensor, error)
	tally      func(ctx context.Context, m Model, d Data, part Part, options any) (*Tally, error)
	parts      func(ctx context.Context, m Model, in Input, options any) iter.Seq2[Prediction, error]
	settings   func(m Model) Config
	forFiles   func(files any, cfg Config)
}

// New returns the Kind of a task with files F, settings C, data D, models M,
// options of evaluation EO, evaluations E, options of prediction PO and
// predictions P.
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
		return some[Data](read(ctx, as[*F](files, "files"), *as[PC](cfg, "settings")))
	}
	k.train = func(ctx context.Context, d Data, cfg Config, run *train.Run) (*Trained, *train.Result, error) {
		m, result, err := fit(ctx, as[D](d, "data"), *as[PC](cfg, "settings"), run)
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
		return some[Evaluation](evaluate(m.(M), ctx, as[D](d, "data"), part, optional[*EO](options)))
	}
	k.predict = func(ctx context.Context, m Model, in Input, options any) (Prediction, error) {
		return present(predict(m.(M), ctx, in, optional[*PO](options)))
	}
	k.parts = func(ctx context.Context, m Model, in Input, options any) iter.Seq2[Prediction, error] {
		return func(yield func(Prediction, error) bool) { yield(k.predict(ctx, m, in, options)) }
	}
	k.settings = func(m Model) Config { c := m.(M).Config(); return PC(&c) }

	type illustrator interface {
		Illustrate(context.Context, D, E) ([]report.Section, error)
	}
	type prober interface {
		Probe(context.Context, D, int) (func(*tensor.Tape) *tensor.Tensor, error)
	}
	type tallier interface {
		Tally(context.Context, D, Part, *EO) (*Tally, error)
	}
	type divided interface {
		Parts(context.Context, Input, *PO) iter.Seq2[P, error]
	}
	if w, ok := reflect.TypeFor[M]().MethodByName("Wants"); ok {
		k.Wants = reflect.Zero(w.Type.Out(0).Elem()).Interface()
	}
	if _, ok := any(PC(nil)).(interface{ ForFiles(*F) }); ok {
		k.forFiles = func(files any, cfg Config) {
			as[interface{ ForFiles(*F) }](cfg, "settings").ForFiles(as[*F](files, "files"))
		}
	}
	var m M
	if _, ok := any(m).(illustrator); ok {
		k.illustrate = func(ctx context.Context, m Model, d Data, e Evaluation) ([]report.Section, error) {
			return m.(illustrator).Illustrate(ctx, as[D](d, "data"), optional[E](e))
		}
	}
	if _, ok := any(m).(prober); ok {
		k.probe = func(ctx context.Context, m Model, d Data, rows int) (func(*tensor.Tape) *tensor.Tensor, error) {
			return m.(prober).Probe(ctx, as[D](d, "data"), rows)
		}
	}
	if _, ok := any(m).(tallier); ok {
		k.tally = func(ctx context.Context, m Model, d Data, part Part, options any) (*Tally, error) {
			return m.(tallier).Tally(ctx, as[D](d, "data"), part, optional[*EO](options))
		}
	}
	if _, ok := any(m).(divided); ok {
		k.parts = func(ctx context.Context, m Model, in Input, options any) iter.Seq2[Prediction, error] {
			return func(yield func(Prediction, error) bool) {
				for p, err := range m.(divided).Parts(ctx, in, optional[*PO](options)) {
					if !yield(present(p, err)) {
						return
					}
				}
			}
		}
	}
	return k
}

// begin returns new options at their defaults: zeros, or what SetDefaults sets.
func begin[O any]() any {
	o := any(new(O))
	if one, ok := o.(interface{ SetDefaults() }); ok {
		one.SetDefaults()
	}
	return o
}

// some returns v as the interface I; nil if there is an error.
func some[I, T any](v T, err error) (I, error) {
	if err != nil {
		var none I
		return none, err
	}
	return any(v).(I), nil
}

// present returns a prediction as the interface; nil if it is absent.
func present[P Prediction](p P, err error) (Prediction, error) {
	if reflect.ValueOf(p).IsZero() {
		return nil, err
	}
	return p, err
}

// as returns v as the type that the task's function takes. A value of another
// task, or none, is a programmer's mistake, which guard returns as an error.
func as[T any](v any, what string) T {
	t, ok := v.(T)
	if p := reflect.ValueOf(v); !ok || p.Kind() == reflect.Pointer && p.IsNil() {
		panic(&tensor.UseError{Op: "task", Msg: fmt.Sprintf("needs %s of type %v, got %T", what, reflect.TypeFor[T](), v)})
	}
	return t
}

// optional is as for what may be left out: nil is nil.
func optional[T any](v any) T {
	if v == nil {
		var none T
		return none
	}
	return as[T](v, "options")
}

// guard runs f and returns a programmer's mistake in it as an error.
func guard[A any](f func() (A, error)) (a A, err error) {
	if caught := tensor.Catch(func() { a, err = f() }); caught != nil {
		err = caught
	}
	return a, err
}

// ForFiles completes the settings from the names of the files, if the task has a
// method for that. Both arguments are pointers as Files and Config return them.
func (k *Kind) ForFiles(files any, cfg Config) {
	if k.forFiles != nil {
		k.forFiles(files, cfg)
	}
}

// Read reads the files and divides them into parts according to the settings;
// both arguments are pointers as Files and Config return them. A file that cannot
// be read or used is a *data.InputError with its name; a cancelled ctx returns
// its error.
func (k *Kind) Read(ctx context.Context, files any, cfg Config) (Data, error) {
	d, err := guard(func() (Data, error) { return k.read(ctx, files, cfg) })
	if err != nil {
		return nil, err
	}
	for prefix, part := range map[string]Part{"valid": Validation, "test": Test} {
		for _, one := range settings.List(files) {
			if strings.HasPrefix(one.Name, prefix) && !one.IsZero() && !d.Has(part) {
				return nil, &data.InputError{File: one.String(), Problem: "holds no sample that can be used", Fix: "give another file, or leave out --" + one.Flag()}
			}
		}
	}
	return d, nil
}

// Train trains a model on data that Read has read with the same settings in the
// group "Data".
//
// Invalid settings or data are a *data.InputError, a shape that does not fit a
// *tensor.ShapeError; other errors are those of [train.Fit] and of saving the
// model. A cancelled ctx is not an error: it leaves a checkpoint and the model with
// the best weights so far, and the result is marked Interrupted.
func (k *Kind) Train(ctx context.Context, d Data, cfg Config, run *train.Run) (m *Trained, r *train.Result, err error) {
	m, err = guard(func() (*Trained, error) {
		var fault error
		m, r, fault = k.train(ctx, d, cfg, run)
		return m, fault
	})
	return m, r, err
}

// Open makes the model of a directory that has been read, on the given device
// (default: the CPU). Contents that do not fit the task are a *model.FileError.
func (k *Kind) Open(d *model.Dir, on ...*tensor.Device) (*Trained, error) {
	return guard(func() (*Trained, error) { return k.open(d, on...) })
}

// Is reports whether a directory holds a model of this task.
func (k *Kind) Is(d *model.Dir) bool { return d.Task == k.Name || k.Was != "" && d.Task == k.Was }

// Trained is a model of any task, with its task. A type switch on Model gives
// access to the methods of one task.
type Trained struct {
	Model
	Kind *Kind
}

// Settings returns a copy of the model's settings, in which the values that
// depend on the data are set.
func (m *Trained) Settings() Config { return m.Kind.settings(m.Model) }

// Read reads files of which the given part is to be scored; "" is that of
// [Trained.PartOf]. The parts are those of the model's training, by its [Memory];
// without one, of a model that an older version saved, the file is divided according
// to the model's settings. Options that are a [Rereader] change how the files are
// read. The errors are those of [Kind.Read] and of the Rereader; a part that files of
// this kind cannot have is a *data.InputError.
func (m *Trained) Read(ctx context.Context, files any, part Part, options ...any) (Data, error) {
	cfg, undivided := m.Settings(), part
	for _, o := range options {
		if one, ok := o.(Rereader); ok {
			if err := one.ForReading(cfg); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case m.Remembers():
		undivided = All
	case part == "":
		undivided = cmp.Or(m.Kind.Part, All)
	}
	if c, ok := cfg.(interface{ ForPart(Part) error }); ok {
		if err := c.ForPart(undivided); err != nil {
			return nil, err
		}
	}
	d, err := m.Kind.Read(ctx, files, cfg)
	if err != nil {
		return nil, err
	}
	if one, ok := d.(interface{ Note(string) }); ok && part == "" && !m.Remembers() {
		one.Note("the model was saved by an older version and does not know which rows it was trained on; they may be among those scored")
	}
	return d, m.Recognise(ctx, d)
}

// rememberer is a model that knows what it was made from.
type rememberer interface {
	Remembers() bool
	Recognise(context.Context, Data) error
}

// Remembers reports whether the model knows what it was made from.
func (m *Trained) Remembers() bool {
	one, ok := m.Model.(rememberer)
	return ok && one.Remembers()
}

// Recognise divides data into the parts of the model's training, if it has a
// [Memory]. It changes the data, which must not be in use meanwhile.
func (m *Trained) Recognise(ctx context.Context, d Data) error {
	if !m.Remembers() {
		return nil
	}
	_, err := guard(func() (any, error) { return nil, m.Model.(rememberer).Recognise(ctx, d) })
	return err
}

// PartOf returns the part of the data that the model is scored on by default: what it
// was not made from, or else what its weights were chosen by. Data with nothing but
// what it was trained on are a *data.InputError. A model without a [Memory] is scored
// on Kind.Part.
func (m *Trained) PartOf(d Data) (Part, error) {
	switch {
	case !m.Remembers():
		return cmp.Or(m.Kind.Part, All), nil
	case d.Has(Test):
		return Test, nil
	case d.Has(Validation):
		return Validation, nil
	}
	return "", &data.InputError{Problem: fmt.Sprintf("%v: every row is one that the model was trained on", d), Fix: "give other data, or name the part to score with --split-part: train, validation or all"}
}

// Evaluate scores the model, and baselines where the task has some, on a part of
// the data; "" is that of [Trained.PartOf]. options is a pointer as Kind.Evaluating
// returns it, or nil. A part without samples and invalid options are a
// *data.InputError; a cancelled ctx returns its error.
func (m *Trained) Evaluate(ctx context.Context, d Data, part Part, options any) (Evaluation, error) {
	part, err := m.toScore(d, part)
	if err != nil {
		return nil, err
	}
	return guard(func() (Evaluation, error) { return m.Kind.evaluate(ctx, m.Model, d, part, options) })
}

// Tally returns the main figure of [Trained.Evaluate] and what each row contributes to
// it, without the baselines. The arguments and errors are those of Evaluate; a task
// without Tally is an error.
func (m *Trained) Tally(ctx context.Context, d Data, part Part, options any) (*Tally, error) {
	if m.Kind.tally == nil {
		return nil, fmt.Errorf("models of task %q cannot be compared by row: the task has no Tally", m.Kind.Name)
	}
	part, err := m.toScore(d, part)
	if err != nil {
		return nil, err
	}
	return guard(func() (*Tally, error) { return m.Kind.tally(ctx, m.Model, d, part, options) })
}

// toScore returns the part that is scored for a part that a caller gives. A part
// without samples is a *data.InputError.
func (m *Trained) toScore(d Data, part Part) (Part, error) {
	part, err := ParsePart(string(part), "")
	if err == nil && part == "" && d != nil {
		part, err = m.PartOf(d)
	}
	if err == nil && d != nil && !d.Has(part) {
		err = data.Errorf("there is nothing to score in the part %q of the data%s", part, presentParts(d))
	}
	return part, err
}

// presentParts names the parts that data have.
func presentParts(d Data) string {
	var names []string
	for _, part := range memoryParts {
		if d.Has(part) {
			names = append(names, string(part))
		}
	}
	if names == nil {
		return ""
	}
	return ", which has only " + strings.Join(names, " and ")
}

// Predict computes the prediction for an input. options is a pointer as
// Kind.Predicting returns it, or nil. An input that cannot be read and invalid
// options are a *data.InputError; a cancelled ctx returns its error. For several
// files, both a prediction and an error may be returned; the error then names the
// files left out.
func (m *Trained) Predict(ctx context.Context, in Input, options any) (Prediction, error) {
	if err := m.takes(in); err != nil {
		return nil, err
	}
	p, err := guard(func() (Prediction, error) { return m.Kind.predict(ctx, m.Model, in, options) })
	return p, inInput(in, err)
}

// Parts computes the prediction for an input in parts, so that memory does not grow
// with the input. The results of Write and of Print of the parts, one after the other,
// are those of the whole prediction, and so is the JSON, if the elements of the last list
// of structs among the fields of the parts are joined: the fields before it are equal in
// all parts, those after it are valid in the last one. Remarks are on what came up to the
// part, and are not repeated. The only part of a task without such a method is the whole.
//
// The errors are those of Predict. One without a part ends the prediction; the parts
// before it are correct, but not all of it.
func (m *Trained) Parts(ctx context.Context, in Input, options any) iter.Seq2[Prediction, error] {
	return func(yield func(Prediction, error) bool) {
		if err := m.takes(in); err != nil {
			yield(nil, err)
			return
		}
		for p, err := range Guarded(m.Kind.parts(ctx, m.Model, in, options)) {
			if !yield(p, inInput(in, err)) || p == nil {
				return
			}
		}
	}
}

// inInput adds the file's name to an error in a line or column of the input.
func inInput(in Input, err error) error {
	if input := (*data.InputError)(nil); errors.As(err, &input) && (input.Line > 0 || input.Column != "") {
		return data.InFile(in.File, err)
	}
	return err
}

// takes refuses an input that the task cannot predict from.
func (m *Trained) takes(in Input) error {
	k := m.Kind
	if in.Table != nil || in.Sounds != nil {
		if in.Table != nil && k.Input() == TableForm || in.Sounds != nil && k.Input() == SoundForm {
			return nil
		}
	}
	if in.File == "" && !(in.Stream != nil && k.Streams() || in.Texts != nil && k.Texts) {
		return data.Errorf("a model for task %q predicts from %s", k.Name, k.Takes)
	}
	return nil
}

// Streams reports whether models of the task predict from a stream.
func (k *Kind) Streams() bool { return k.Stream || k.Texts }

// Illustrate returns further sections for the report of a training, beside those
// of the evaluation e, which may be nil. The errors are those of
// [Trained.Predict].
func (m *Trained) Illustrate(ctx context.Context, d Data, e Evaluation) ([]report.Section, error) {
	if m.Kind.illustrate == nil {
		return nil, nil
	}
	return guard(func() ([]report.Section, error) { return m.Kind.illustrate(ctx, m.Model, d, e) })
}

// Wants returns what data the model needs, as a pointer to a struct of the type
// of Kind.Wants; nil if the task does not describe it.
func (m *Trained) Wants() any {
	if m.Kind.Wants == nil {
		return nil
	}
	return reflect.ValueOf(m.Model).MethodByName("Wants").Call(nil)[0].Interface()
}

// Title returns the title for the report of the model's training.
func (m *Trained) Title() string {
	if own, ok := m.Model.(interface{ Title() string }); ok {
		return own.Title()
	}
	return m.Kind.Title
}

// Probe returns a function that computes, on a tape in Train mode, the loss of a
// batch of about rows samples of the data. A task without Probe, and rows below
// 1, are an error; data without a sample that can be used are a *data.InputError; a
// cancelled ctx returns its error.
func (m *Trained) Probe(ctx context.Context, d Data, rows int) (func(*tensor.Tape) *tensor.Tensor, error) {
	if m.Kind.probe == nil {
		return nil, fmt.Errorf("explain gradients does not support models of task %q", m.Kind.Name)
	}
	return guard(func() (func(*tensor.Tape) *tensor.Tensor, error) { return m.Kind.probe(ctx, m.Model, d, rows) })
}

// CanProbe reports whether models of the task have a Probe.
func (k *Kind) CanProbe() bool { return k.probe != nil }
