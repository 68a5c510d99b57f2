// Package forecast trains recurrent networks to forecast time series, and scores
// them beside baselines on the same windows.
//
// [Read] reads a table, and [Train] trains a [Model] on it with the settings of a
// [Config]. A Model forecasts tables ([Model.Forecast]) and files
// ([Model.Predict]); [Model.Evaluate] and [Model.Backtest] score it; [Model.Save]
// writes it to a directory that [Open] reads.
//
// Scalers and calendars are fitted to the training rows alone, and the network at first. What a
// forecast is a mixture of is chosen by cross validation on the training and
// validation rows; the model is then fitted to these for scores, and to all rows for
// forecasts (Config.Refit). The targets of a window are in one part; its
// history may begin in the rows before the part.
//
// Functions that compute return a panic with a [*tensor.ShapeError] or a
// [*tensor.UseError] as their error: operands that do not fit, or nil data.
package forecast

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

// Name is the name of the task, as in the config.json of a model directory.
const Name = "forecast"

// Task is the task of forecasting.
var Task = task.New(task.About{
	Name: Name, Noun: "a forecasting model", Title: "Forecast",
	Short: "Train a forecasting model on a table of time series",
	Long: `Trains a forecasting model, scores it and baselines on the test rows, and writes
model, checkpoints and report into --out. After the scoring it is fitted to all rows,
those of the test too; --refit decides it.`,
	Example: `  carousel train forecast --data sales.csv --time date --target units --out run
  carousel train forecast --data load.csv.gz --time time --target mw --future temp --holiday holiday \
      --horizon 24 --loss quantile --out run
  carousel train forecast --data shops.parquet --time day --id shop --target sales --static region --out run
  carousel train forecast --config recipe.yaml --set hidden=128 --out run`,
	Scores: wanted, Takes: wanted + ", or - for standard input",
	Stream: true,
	Part:   task.Test,
	Form:   task.TableForm,
}, Defaults, Read, Train, OpenDir, (*Model).Evaluate, (*Model).Predict)

const wanted = "a table with the columns the model was trained on"

// Files are the files of a training.
type Files struct {
	Data string `json:"data" value:"file" group:"Files" help:"training data: a table (CSV, TSV, .tsf or Parquet), of which split divides each series into training, validation and test; may be gzipped; - for standard input"`
}

// ForFiles sets the layout by the file's name if none is given.
func (c *Config) ForFiles(f *Files) {
	if name := strings.TrimSuffix(strings.ToLower(f.Data), ".gz"); c.Layout == data.LayoutLong && strings.HasSuffix(name, ".tsf") {
		c.Layout = data.LayoutTSF
	}
}

// Data is a table of series, whose rows are divided into parts. Each training and
// each evaluation makes its windows from it.
type Data struct {
	task.Source
	Panel *data.Panel // as it was read; it is not changed

	lines task.Memo              // linear paths, by the settings that they depend on
	rows  [3]int                 // by part
	parts map[*data.Series]parts // as rows are counted
}

// Read reads a table with the columns that cfg names. Targets and past covariates
// may end before the file does: the rows after them have what is known over the
// horizon. A file that cannot be read or lacks columns, and invalid settings, are
// a *data.InputError; a cancelled ctx returns its error.
func Read(ctx context.Context, f *Files, cfg Config) (*Data, error) {
	var notes task.Source
	panel, err := readPanel(ctx, task.Input{File: f.Data}, &cfg, notes.Note)
	if err != nil {
		return nil, err
	}
	d, err := NewData(panel, cfg)
	if err != nil {
		return nil, data.InFile(f.Data, err)
	}
	d.Source = notes
	d.Name = data.BaseName(f.Data)
	for _, note := range panel.Notes {
		d.Note(note)
	}
	if note := filledNote(panel, 0); note != "" {
		d.Note(note)
	}
	if len(cfg.Future) > 0 {
		d.Note(strings.Join(cfg.Future, ", ") + ": taken as known over the horizon, in training and in the scores")
	}
	return d, nil
}

// NewData returns the data for a table in memory with the columns that cfg names.
// A table that lacks some, or has no target, or values that a model with these
// settings cannot use, is a *data.InputError.
func NewData(panel *data.Panel, cfg Config) (*Data, error) {
	frames, _, err := rawFrames(panel, &cfg)
	if err == nil {
		frames, _, err = withTarget(&cfg, frames)
	}
	if err != nil {
		return nil, err
	}
	d := &Data{Panel: panel}
	if divide(cfg.Split, frames) != nil {
		d.rows = [3]int{1, 1, 1} // the error is returned when the parts are needed
		return d, nil
	}
	d.count(frames)
	return d, nil
}

// Hints returns what a training might be told of the table that it was not: columns
// that look like times or series, and the time zone; a sentence each.
func (d *Data) Hints() []string {
	hints := slices.Clone(d.Panel.Hints)
	if note := clockNote(d.Panel); note != "" {
		hints = append(hints, note)
	}
	return hints
}

// Has reports whether some series has a row in a part, divided by the settings
// that the data were read with, or by what a model remembers ([Model.Recognise]).
func (d *Data) Has(part task.Part) bool {
	at := slices.Index(partNames, part)
	return part == task.All || at >= 0 && d.rows[at] > 0
}

// String describes the table in one line.
func (d *Data) String() string {
	rows := 0
	var first, last time.Time
	for _, s := range d.Panel.Series {
		rows += s.Len()
		if s.Time == nil {
			continue
		}
		if begin := s.Time[0]; first.IsZero() || begin.Before(first) {
			first = begin
		}
		if end := s.Time[len(s.Time)-1]; end.After(last) {
			last = end
		}
	}
	text := report.Plural(rows, "row")
	if d.Name != "" {
		text = d.Name + ": " + text
	}
	if f := d.Panel.Freq.String(); f != "" {
		text += " at " + f
	}
	if !first.IsZero() {
		text += fmt.Sprintf(" from %s to %s", d.Panel.Style.Format(first), d.Panel.Style.Format(last))
	}
	if n := len(d.Panel.Series); n > 1 {
		text += ", " + report.Count(n) + " series"
	}
	return text
}

// Wants describes the tables that a model needs.
type Wants struct {
	Freq   string   `json:"freq"`             // spacing of the rows
	Time   string   `json:"time,omitempty"`   // column of timestamps
	ID     string   `json:"id,omitempty"`     // column that identifies the series
	Target []string `json:"target"`           // columns that are forecast
	Past   []string `json:"past,omitempty"`   // columns that are known up to the forecast origin
	Future []string `json:"future,omitempty"` // columns that are known over the horizon, with that of holidays
	Static []string `json:"static,omitempty"` // columns with one value per series
	Series int      `json:"series"`           // number of series in training
}

// Wants returns the columns that the model needs in a table, and their kinds.
func (m *Model) Wants() *Wants {
	return &Wants{
		Freq: m.schema.Freq.String(), Time: m.cfg.Time, ID: m.cfg.ID, Target: m.cfg.columns(), Past: m.cfg.Past,
		Future: m.cfg.ahead(), Static: m.cfg.Static, Series: len(m.schema.Series),
	}
}

// Title returns the title of the report of a training.
func (m *Model) Title() string { return "Forecast of " + strings.Join(m.cfg.columns(), ", ") }
