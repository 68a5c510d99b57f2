package speech

import (
	"context"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/report"
	"github.com/carousel-ml/carousel/task"
)

// Files are the files of a task on speech.
type Files struct {
	Data  string `json:"data" value:"file" group:"Files" help:"training data: a manifest, which is a table (CSV or TSV) with a sound file per row; may be gzipped"`
	Valid string `json:"valid" value:"file" group:"Files" help:"validation data: a manifest (empty: the rows whose part is validation, or a share of the training data, see split_column and holdout)"`
	Test  string `json:"test" value:"file" group:"Files" help:"test data, on which the trained model is scored: a manifest (empty: the rows whose part is test, or else the validation part)"`
	Cache string `json:"cache" value:"dir" group:"Files" help:"directory in which computed features are kept for later runs"`
}

// Data is utterances by part. It keeps the features of their sounds in memory, up
// to a limit, so that several trainings and evaluations compute them once.
type Data struct {
	task.Parts[Utterance]
	task.Source
	features *features
}

// Read reads manifests with [Setup.ReadManifest]. Those for validation and test are
// parts of their own, of which columns of parts and speakers are not read; the
// training manifest is divided by [NewData], without a Holdout if there is one for
// validation. It
// checks that the sounds exist; training reads them. The errors are those of
// these two functions, and a *data.InputError for a cache that is not a
// directory.
func Read(ctx context.Context, f *Files, c *Setup, column string, use func(*Utterance) error) (*Data, error) {
	if f.Cache != "" {
		if err := checkCache(f.Cache); err != nil {
			return nil, err
		}
	}
	var notes task.Source
	list, err := c.ReadManifest(ctx, f.Data, column, notes.Note, use)
	if err != nil {
		return nil, err
	}
	division := *c
	if f.Valid != "" {
		division.Holdout = 0
	}
	d, err := NewData(list, &division)
	if err != nil {
		return nil, err
	}
	d.Source = notes
	d.Name, d.features.dir = data.BaseName(f.Data)+": "+report.Plural(len(list), "utterance"), f.Cache
	whole := *c
	whole.SplitColumn, whole.Speaker = "", ""
	for _, one := range []struct {
		path string
		part task.Part
		to   *[]Utterance
	}{{f.Valid, task.Validation, &d.Validation}, {f.Test, task.Test, &d.Test}} {
		if one.path == "" {
			continue
		}
		d.Separate = append(d.Separate, one.part)
		if *one.to, err = whole.ReadManifest(ctx, one.path, column, d.Note, use); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// NewData divides utterances in memory into parts: by their Part if SplitColumn
// is set, otherwise the share Holdout of the utterances, or of the speakers, is
// for validation and the rest for training. A share that leaves nothing to train
// on is a *data.InputError.
func NewData(list []Utterance, c *Setup) (*Data, error) {
	p, err := c.divide(list)
	return &Data{Parts: p, features: &features{}}, err
}

// Remember adds the utterances of all parts to a model's memory.
func (d *Data) Remember(m *task.Memory) { d.RememberBy(m, d.features.sumOf) }

// Recognise divides the utterances of the manifest by a model's memory. It reads the
// beginnings of the sounds; the error is ctx's.
func (d *Data) Recognise(ctx context.Context, m *task.Memory) error {
	if err := d.readSums(ctx, d.Of(task.All)); err != nil {
		return err
	}
	d.RecogniseBy(m, d.features.sumOf)
	return nil
}

// ToLearn returns the training utterances. If there are none the error is a
// *data.InputError.
func (d *Data) ToLearn(c *Setup) ([]Utterance, error) {
	all := d.Of(task.All)
	switch {
	case len(d.Training) > 0:
		return d.Training, nil
	case len(all) > 0:
		return nil, &data.InputError{File: all[0].File, Column: c.SplitColumn, Problem: "names no row train"}
	}
	return nil, data.Errorf("there is no utterance to learn from")
}

// Prepare reads the sounds of all parts and returns the datasets for training and
// validation. It sets the settings that depend on the sounds, such as Rate.
// Sounds of the test part are read too, so that damaged files are found before
// training. Files that cannot be used are one *data.InputError that names them; a
// cancelled ctx returns its error.
func (d *Data) Prepare(ctx context.Context, c *Setup) (learn, valid *Dataset, err error) {
	f := &Frontend{setup: c}
	var faults []fault
	var sets [3]*Dataset
	for i, part := range []task.Part{task.Training, task.Validation, task.Test} {
		sets[i] = f.dataset(d.Of(part), d)
		more, err := sets[i].open(ctx)
		if err != nil {
			return nil, nil, err
		}
		faults = append(faults, more...)
	}
	if err := gather(faults); err != nil {
		return nil, nil, err
	}
	for _, set := range sets {
		if err := d.readSums(ctx, set.List); err != nil {
			return nil, nil, err
		}
	}
	return sets[0], sets[1], sets[0].measure(ctx)
}
