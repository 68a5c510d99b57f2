package task

import (
	"bytes"
	"context"
	"encoding"
	"math"
	"slices"
	"strconv"

	"github.com/carousel-ml/carousel/audio"
	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/internal/result"
	"github.com/carousel-ml/carousel/internal/settings"
)

// Form is the form of the input that a served model takes.
type Form string

// The forms of inputs. The zero Form is that of a task that cannot be served.
const (
	TextForm  Form = "text"  // texts: Input.Texts
	TableForm Form = "table" // a table: Input.Table, or Input.Stream with its text
	SoundForm Form = "sound" // sounds: Input.Sounds
)

// Service is how a server offers a model: what it takes, and its predictions as columns
// of values. A model has it from its method Serves; see [Trained.Service].
type Service struct {
	// Columns are the columns of a table that the model reads, in the order in which
	// they are shown.
	Columns []Field
	// Outputs are the columns of a prediction.
	Outputs []Output
	// Apart says that the prediction for a text or a sound depends on nothing else of its
	// input but its number, and that each has as many values of an output, and elements
	// of the prediction's list. So texts of several clients may be predicted together.
	Apart bool
	// Most are the largest values of options that a client may give, by name, where the
	// range of the option is for a user of the own machine.
	Most map[string]float64
	// NewStream returns a prediction of input that arrives in parts; nil if the model
	// makes none.
	NewStream func() Stream
	// Samples says that NewStream's parts are samples of sound: Input.Samples.
	Samples bool
}

// Field is a column of a table.
type Field struct {
	Name   string
	Number bool // its values are numbers; otherwise texts, such as times
}

// Output is a column of a prediction. One of Texts and Numbers is set. It returns a value
// for each row or, of numbers with Labels, one for each label of each row; nil if the
// prediction has no such column, as those of a stream and of a whole input differ.
type Output struct {
	Name    string
	Labels  []string
	Texts   func(p Prediction) []string
	Numbers func(p Prediction) []float64
}

// TextsOf returns a text for each element of a prediction's list, for an [Output].
func TextsOf[T any](list []T, of func(one *T) string) []string {
	texts := make([]string, len(list))
	for i := range list {
		texts[i] = of(&list[i])
	}
	return texts
}

// Stream is a prediction of input that arrives in portions. It is used by one goroutine at a
// time.
type Stream interface {
	// Feed takes the next portion of the input and returns the prediction after it, equal to
	// that for all portions at once. One that cannot be used is a *data.InputError and
	// changes nothing, and a cancelled ctx returns its error.
	Feed(ctx context.Context, p *Portion) (Prediction, error)
	// Bytes returns the memory that the stream takes.
	Bytes() int
	// MarshalBinary returns the stream's state, from which UnmarshalBinary of a stream of
	// an equal model continues. Streams whose state has no such form return an error.
	// UnmarshalBinary checks all that it reads and changes nothing on an error.
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
}

// Portion is a part of the input of a [Stream].
type Portion struct {
	Input
	Options any // a pointer as Kind.Predicting returns it, or nil; they may change between portions unless the stream says otherwise
	// Last says that no portion follows: the prediction is the final one, and the stream
	// begins anew.
	Last bool
	// Wants reports whether an output of the prediction will be looked at; nil: all are.
	Wants func(output string) bool
}

// Column is a column of a table in memory. One of Texts and Numbers is set.
type Column struct {
	Name    string
	Texts   []string  // "" is missing
	Numbers []float64 // NaN is missing
}

// Len returns the number of rows.
func (c *Column) Len() int { return len(c.Texts) + len(c.Numbers) }

// Text returns the value of a row as a table in a file has it; "" if it is missing.
func (c *Column) Text(row int) string {
	if c.Texts != nil {
		return c.Texts[row]
	}
	x := c.Numbers[row]
	if x != x {
		return ""
	}
	return FormatNumber(x)
}

// FormatNumber writes a number as JSON does: with all its digits, so that numbers which
// differ differ in the text.
func FormatNumber(x float64) string {
	if size := math.Abs(x); size != 0 && (size < 1e-6 || size >= 1e21) {
		return strconv.FormatFloat(x, 'e', -1, 64)
	}
	return strconv.FormatFloat(x, 'f', -1, 64)
}

// Sound is the content of a sound file, WAV or FLAC. The prediction calls it Name.
type Sound struct {
	Name string
	Data []byte
}

// Samples of a [Sound] may be this many, or for large ones some for each byte: what a client
// sends takes memory in proportion to its size.
const (
	soundSamples = 1 << 24 // 17 minutes of 16 kHz
	byteSamples  = 4       // more than any compressed speech has
)

// Read reads the sound. What is not WAV or FLAC, is damaged, or has more samples than its
// size explains, is a *data.InputError.
func (s *Sound) Read() (*audio.Sound, error) {
	r, err := audio.NewReader(bytes.NewReader(s.Data), s.Name)
	if err != nil {
		return nil, err
	}
	return r.ReadMost(max(soundSamples, byteSamples*len(s.Data)))
}

// Number returns the number of text i of Texts.
func (in *Input) Number(i int) int {
	if in.Numbers == nil {
		return i + 1
	}
	return in.Numbers[i]
}

// Input returns the form of the input that servers take for models of the task: About.Form,
// or texts if the task predicts from these.
func (k *Kind) Input() Form {
	if k.Form == "" && k.Texts {
		return TextForm
	}
	return k.Form
}

// Service returns how a server offers the model. One without the method
//
//	Serves() (*Service, error)
//
// whose task predicts from texts takes these, and its prediction has only its JSON. A
// model that cannot be served is a *data.InputError.
func (m *Trained) Service() (*Service, error) {
	if one, ok := m.Model.(interface{ Serves() (*Service, error) }); ok {
		return one.Serves()
	}
	if m.Kind.Input() != TextForm {
		return nil, data.Errorf("a model for task %q cannot be served: it predicts from %s", m.Kind.Name, m.Kind.Takes)
	}
	return &Service{}, nil
}

// Options returns options of a prediction as the command makes them: the task's defaults
// or the model's, changed by set. given are the names of the settings that set changes;
// without "seed" among them a seed is 1. The errors are those of set, and *data.InputErrors
// for options that are not valid.
func (m *Trained) Options(given []string, set func(options any) error) (any, error) {
	o := m.Kind.Predicting()
	if seed := settings.Named(settings.List(o), "seed"); seed != nil {
		if err := seed.Assign("1"); err != nil {
			return nil, err
		}
	}
	if one, ok := o.(Inheritor); ok {
		one.Inherit(m.Model, func(name string) bool { return slices.Contains(given, name) })
	}
	if err := set(o); err != nil {
		return nil, err
	}
	if err := settings.Check(o); err != nil {
		return nil, data.Setting(err)
	}
	if one, ok := o.(interface{ Validate() error }); ok {
		return o, one.Validate()
	}
	return o, nil
}

// predictVersion is the version of the objects that PredictSchema names.
const predictVersion = 1

// PredictSchema returns the schema of the task's predictions as JSON objects: its name
// and version.
func (k *Kind) PredictSchema() (name string, version int) { return "predict." + k.Name, predictVersion }

// PredictJSON computes the prediction for an input, with the errors of [Trained.Parts],
// and returns the JSON object that the command prints for it, without a line break.
func (m *Trained) PredictJSON(ctx context.Context, in Input, options any) ([]byte, error) {
	schema := result.Schema(m.Kind.PredictSchema())
	var text []byte
	var parts result.Parts
	for p, err := range m.Parts(ctx, in, options) {
		if err != nil {
			return nil, err
		}
		if text, err = parts.Add(text, schema, p); err != nil {
			return nil, err
		}
	}
	text, err := parts.Rest(text)
	return append(text, '}'), err
}

// JSON returns a prediction as the JSON object that the command prints, without a line
// break.
func (k *Kind) JSON(p Prediction) ([]byte, error) {
	text, err := result.Object(result.Schema(k.PredictSchema()), p)
	return append(text, '}'), err
}

// Elements returns the number of elements of a prediction's list, one or several for each
// text, and each of them as JSON; nil if the prediction has no list.
func Elements(p Prediction) (each func(i int) (string, error), count int) { return result.Elements(p) }
