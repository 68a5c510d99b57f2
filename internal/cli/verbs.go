package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/internal/cli/recipe"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
	"github.com/carousel-ml/carousel/quantize"
	"github.com/carousel-ml/carousel/task"
)

// A verb is the part of a command on a model directory that is for the models of one
// task. It defines the task's flags and returns what runs; two tasks share a
// flag by giving it the same name.
type verb func(k *task.Kind, flags *pflag.FlagSet) verbRun

type verbRun func(ctx context.Context, dir *model.Dir, m *task.Trained) error

// verbCommand completes a command that does its verb for the task of a directory.
func (a *app) verbCommand(c *cobra.Command, do verb) *cobra.Command {
	runs := map[*task.Kind]verbRun{}
	owners := map[string][]string{}   // tasks by flag
	meanings := map[string][]string{} // the help of each of them
	differ := map[string]bool{}       // flags of more than one
	for _, k := range a.kinds {
		flags := pflag.NewFlagSet(k.Name, pflag.ContinueOnError)
		flags.SortFlags = false
		runs[k] = do(k, flags)
		flags.VisitAll(func(f *pflag.Flag) {
			owners[f.Name] = append(owners[f.Name], k.Name)
			if shared := c.Flags().Lookup(f.Name); shared != nil {
				shared.Value = sharedFlag{shared.Value, f.Value}
				if meanings[f.Name] = append(meanings[f.Name], k.Name+": "+f.Usage); f.Usage != shared.Usage {
					differ[f.Name] = true
				}
			} else {
				c.Flags().AddFlag(f)
				meanings[f.Name] = []string{k.Name + ": " + f.Usage}
			}
		})
	}
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if differ[f.Name] {
			f.Usage = strings.Join(meanings[f.Name], "; ")
		}
		if len(runs) > 1 && len(owners[f.Name]) < len(runs) {
			f.Annotations = map[string][]string{recipe.Group: {"Of " + strings.Join(owners[f.Name], ", ")}}
		}
	})
	a.computes.bind(c.Flags())
	c.GroupID = groupWork
	c.Args = oneArg("a model directory")
	c.RunE = func(c *cobra.Command, args []string) error {
		dir, err := model.Open(args[0])
		if err != nil {
			return err
		}
		k := a.kindOf(dir)
		if k == nil {
			return a.otherTask(dir, c.Name(), a.kinds)
		}
		if name := foreignFlag(c.Flags(), owners, k.Name); name != "" {
			return misusef("--%s: not supported by a model for %s; it is for %s", name, k.Name, strings.Join(owners[name], ", "))
		}
		if err := checkModelKept(c, dir); err != nil {
			return err
		}
		on, err := a.device()
		if err != nil {
			return err
		}
		m, err := k.Open(dir, on)
		if err != nil {
			return err
		}
		r, err := quantize.ReportOf(dir)
		if err != nil {
			return err
		}
		if text := r.Here(); text != "" {
			a.remark(text)
		}
		return runs[k](c.Context(), dir, m)
	}
	return c
}

// kindOf is the task of a directory, or nil.
func (a *app) kindOf(dir *model.Dir) *task.Kind {
	for _, k := range a.kinds {
		if k.Is(dir) {
			return k
		}
	}
	return nil
}

// otherTask returns the error of a command that does not support a directory's model.
func (a *app) otherTask(dir *model.Dir, command string, of []*task.Kind, more ...string) error {
	for _, k := range of {
		more = append(more, k.Name)
	}
	fix := "name another model directory"
	if dir.Task == model.WeightsTask {
		fix = "use carousel run"
		if command == "quantize" {
			fix = fmt.Sprintf("write it as a graph with carousel export %s --out MODEL.onnx, and quantize that", dir.Path)
		}
	}
	return &model.FileError{File: dir.Path, Problem: fmt.Sprintf("a model for task %q, and %s is for %s", dir.Task, command, strings.Join(more, ", ")), Fix: fix}
}

// foreignFlag returns the first flag given that the task does not have, or "".
func foreignFlag(flags *pflag.FlagSet, owners map[string][]string, task string) (name string) {
	flags.Visit(func(f *pflag.Flag) {
		list := owners[f.Name]
		if name == "" && list != nil && !slices.Contains(list, task) {
			name = f.Name
		}
	})
	return name
}

// sharedFlag is one flag of several tasks.
type sharedFlag struct {
	pflag.Value
	other pflag.Value
}

func (f sharedFlag) Set(s string) error {
	if err := f.Value.Set(s); err != nil {
		return err
	}
	return f.other.Set(s)
}

// options are structs whose fields are flags of a command that uses a model.
type options struct {
	*recipe.Set
	structs []any
}

// optionFlags makes flags of the fields of structs, which hold their defaults,
// but not of those that a command does not support, nor of a seed, which is a flag of
// every command.
func optionFlags(flags *pflag.FlagSet, without []string, structs ...any) *options {
	o := &options{recipe.Of(structs...).Without(without...), structs}
	o.Bind(flags, "seed")
	return o
}

// resolve sets the structs' fields to the flags given, and checks the result.
func (o *options) resolve() error {
	if err := o.Resolve("", nil); err != nil {
		return misusef("%v", err)
	}
	for _, ptr := range o.structs {
		for _, one := range settings.List(ptr) {
			if err := one.Check(); err != nil {
				return misusef("--%s%s", one.Flag(), strings.TrimPrefix(err.Error(), one.Name))
			}
		}
	}
	return nil
}

// dataFlags makes the flags of the files that a model is applied to, those of
// files whose names begin with data, and of the settings of more, without some names.
func dataFlags(flags *pflag.FlagSet, without []string, files any, more ...any) *options {
	for _, one := range settings.List(files) {
		if !strings.HasPrefix(one.Name, "data") {
			without = append(without, one.Name)
		}
	}
	o := optionFlags(flags, without, append([]any{files}, more...)...)
	if f := flags.Lookup("data"); f != nil {
		f.Usage = "`file` like that the model was trained on"
	}
	return o
}

// takeOver resolves the flags of options: they begin with the model's values, which the
// flags given override.
func (o *options) takeOver(m *task.Trained, ptr any) error {
	if one, ok := ptr.(task.Inheritor); ok {
		one.Inherit(m.Model, func(name string) bool { return o.Given(name) })
	}
	if err := o.resolve(); err != nil {
		return err
	}
	if one, ok := ptr.(interface{ Validate() error }); ok {
		return one.Validate()
	}
	return nil
}
