package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/data"
	"github.com/carousel-ml/carousel/text/generate"
)

// generateTask is language models as the commands see them.
var generateTask = task{
	name:     generate.Task,
	train:    (*app).trainGenerateCommand,
	evaluate: (*app).evaluateGenerate,
}

// generateRun is one training of a language model.
type generateRun struct {
	trainRun
	files generateFiles
	cfg   generate.Config
}

type generateFiles struct {
	Data  string `json:"data" group:"Files" help:"text to learn from: a file, plain or gzipped, or a directory with files of text"`
	Valid string `json:"valid" group:"Files" help:"text to validate on (empty: a part of --data)"`
	Test  string `json:"test" group:"Files" help:"text to score the model on at the end (empty: the part of --data that split leaves for it)"`
}

func (a *app) trainGenerateCommand() *cobra.Command {
	run := &generateRun{cfg: generate.Defaults()}
	return a.trainTaskCommand(&trainTask{
		use:   "generate --data FILE|DIR --out DIR",
		short: "Train a language model on text or source code",
		long: `Trains a model that tells, character by character or word by word, how a text
goes on, and writes model, checkpoints and report into --out. Any text will do:
a file, or a directory of prose or source code.`,
		example: `  carousel train generate --data shakespeare.txt --out run
  carousel train generate --data "$(go env GOROOT)/src/fmt" --out run
  carousel train generate --data wiki.train.txt.gz --valid wiki.valid.txt.gz --unit word --out run`,
		settings: []any{&run.files, &run.cfg},
		run:      &run.trainRun,
		seed:     &run.cfg.Seed,
		check:    run.check,
		train:    func(ctx context.Context) (*trainResult, error) { return a.trainGenerate(ctx, run) },
	})
}

// check finds misuse before anything is read or written.
func (r *generateRun) check() error {
	if r.files.Data == "" {
		return misusef("train generate needs --data, the text to learn from: a file or a directory")
	}
	return r.cfg.Validate()
}

// trainGenerate reads, trains, evaluates and reports.
func (a *app) trainGenerate(ctx context.Context, run *generateRun) (*trainResult, error) {
	docs, valid, test, err := a.generateParts(run)
	if err != nil {
		return nil, err
	}
	m, result, err := generate.Train(ctx, docs, valid, run.cfg, &generate.TrainOptions{
		Dir:         run.Out,
		Resume:      run.resume,
		TensorBoard: run.TensorBoard,
		Progress:    a.progress(),
	})
	if err != nil {
		return nil, err
	}
	if result.Interrupted {
		return nil, a.stopped(&run.trainRun, result)
	}
	out := newTrainResult(generate.Task, &run.trainRun, m.Slab(), result)
	if len(test) == 0 {
		return out, nil
	}
	e, err := m.Evaluate(test)
	if err != nil {
		return nil, err
	}
	out.Evaluation, out.show = e, func(w io.Writer) { printGenerateEvaluation(w, e) }
	return out, nil
}

// generateParts reads the texts and divides them.
func (a *app) generateParts(run *generateRun) (docs, valid, test []data.Document, err error) {
	read := func(path string) []data.Document {
		if path == "" || err != nil {
			return nil
		}
		var list []data.Document
		list, err = a.readDocuments(path, run.cfg.Encoding)
		return list
	}
	docs, validFile, testFile := read(run.files.Data), read(run.files.Valid), read(run.files.Test)
	if err != nil {
		return nil, nil, nil, err
	}
	if validFile == nil || run.cfg.Split != "" {
		if docs, valid, test, err = run.cfg.Divide(docs); err != nil {
			return nil, nil, nil, err
		}
	}
	if validFile != nil {
		valid = validFile
	}
	if testFile != nil {
		test = testFile
	}
	return docs, valid, test, nil
}

// readDocuments reads a file or a directory of text.
func (a *app) readDocuments(path, encoding string) ([]data.Document, error) {
	var docs []data.Document
	for d, err := range data.ReadDocuments(path, encoding, func(note string) { a.note("Note: %s", note) }) {
		if err != nil {
			return nil, err
		}
		docs = append(docs, d)
	}
	return docs, nil
}

func (a *app) evaluateGenerate(flags *pflag.FlagSet) verbRun {
	path := dataFlag(flags)
	part := flags.String("split-part", "all", "`part` of the rows: train, validation, test or all")
	return func(_ context.Context, dir string) error {
		m, err := generate.Open(dir)
		if err != nil {
			return err
		}
		if *path == "" {
			return misusef("--data is needed: a text to score the model on")
		}
		cfg := m.Config()
		docs, err := a.readDocuments(*path, cfg.Encoding)
		if err != nil {
			return err
		}
		if docs, err = partOf(&cfg, docs, *part); err != nil {
			return err
		}
		e, err := m.Evaluate(docs)
		if err != nil {
			return err
		}
		return a.emit(e, func(w io.Writer) { printGenerateEvaluation(w, e) })
	}
}

// partOf is the named part of documents, divided as for training.
func partOf(cfg *generate.Config, docs []data.Document, part string) ([]data.Document, error) {
	train, valid, test, err := cfg.Divide(docs)
	if err != nil {
		return nil, err
	}
	parts := map[string][]data.Document{"all": docs, "train": train, "validation": valid, "test": test}
	list, ok := parts[part]
	switch {
	case !ok:
		return nil, misusef("--split-part: want train, validation, test or all, got %q", part)
	case len(list) == 0:
		return nil, misusef("--split-part %s: the split of the model leaves no such part; leave it out to score the whole text", part)
	}
	return list, nil
}

func printGenerateEvaluation(w io.Writer, e *generate.Evaluation) {
	fmt.Fprintf(w, "%s of %s: %s\n", plural(e.Tokens, "token"), plural(e.Documents, "document"), number(e.Metrics.Nats))
}
