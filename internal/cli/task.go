package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/carousel-ml/carousel/internal/cli/recipe"
	"github.com/carousel-ml/carousel/internal/explain"
	"github.com/carousel-ml/carousel/internal/settings"
	"github.com/carousel-ml/carousel/model"
)

// taskVerbs is a kind of model, as the commands see it.
type taskVerbs struct {
	name     string
	was      string                    // in directories of older versions, if another
	train    func(*app) *cobra.Command // of trainTaskCommand
	evaluate verb
	predict  verb
	inspect  func(*inspection, *model.Dir) error // adds what the task knows of a model directory; it may be nil

	// probe opens a model and makes the loss of a batch of about so many rows of a
	// data file, through which explain gradients looks into the network; it may be nil.
	probe func(dir *model.Dir, data string, rows int) (*explain.Subject, error)
}

// tasks are all of them, in the order of the help.
func (a *app) tasks() []*taskVerbs {
	var list []*taskVerbs
	for _, k := range a.kinds {
		list = append(list, taskOf(k))
	}
	return list
}

// A verb is what a command that reads a model directory does for one task. It
// defines the task's flags and returns what runs; two tasks share a flag by
// giving it the same name.
type verb func(a *app, flags *pflag.FlagSet) verbRun

type verbRun func(ctx context.Context, dir *model.Dir) error

// verbCommand completes a command whose work the task of the directory does.
func (a *app) verbCommand(c *cobra.Command, of func(*taskVerbs) verb) *cobra.Command {
	runs := map[string]verbRun{}
	owners := map[string][]string{}   // tasks by flag
	meanings := map[string][]string{} // the help of each of them
	differ := map[string]bool{}       // flags of more than one
	for _, t := range a.tasks() {
		v := of(t)
		if v == nil {
			continue
		}
		flags := pflag.NewFlagSet(t.name, pflag.ContinueOnError)
		flags.SortFlags = false
		runs[t.name] = v(a, flags)
		flags.VisitAll(func(f *pflag.Flag) {
			owners[f.Name] = append(owners[f.Name], t.name)
			if shared := c.Flags().Lookup(f.Name); shared != nil {
				shared.Value = sharedFlag{shared.Value, f.Value}
				if meanings[f.Name] = append(meanings[f.Name], t.name+": "+f.Usage); f.Usage != shared.Usage {
					differ[f.Name] = true
				}
			} else {
				c.Flags().AddFlag(f)
				meanings[f.Name] = []string{t.name + ": " + f.Usage}
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
	c.GroupID = groupWork
	c.Args = oneArg("a model directory")
	c.RunE = func(c *cobra.Command, args []string) error {
		dir, err := model.Open(args[0])
		if err != nil {
			return err
		}
		task := dir.Task
		if t := a.taskNamed(task); t != nil {
			task = t.name
		}
		run := runs[task]
		if run == nil {
			return otherTask(args[0], task, c.Name(), slices.Sorted(maps.Keys(runs)))
		}
		if name := foreignFlag(c.Flags(), owners, task); name != "" {
			return misusef("--%s: means nothing to a model for %s; it is for %s", name, task, strings.Join(owners[name], ", "))
		}
		return run(c.Context(), dir)
	}
	return c
}

// otherTask says that a command has no use for a model of a task.
func otherTask(path, task, command string, of []string) error {
	return &model.FileError{File: path, Problem: fmt.Sprintf("a model for task %q, and %s is for %s", task, command, strings.Join(of, ", ")), Fix: "name another model directory"}
}

// foreignFlag is the first flag given that the task has no use for, or "".
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

// taskNamed is the task of that name, which may be an older one, or nil.
func (a *app) taskNamed(name string) *taskVerbs {
	for _, t := range a.tasks() {
		if t.name == name || t.was != "" && t.was == name {
			return t
		}
	}
	return nil
}

// options are structs whose fields are flags of a command that uses a model.
type options struct {
	*recipe.Set
	structs []any
}

// optionFlags makes flags of the fields of structs, which hold their defaults,
// but not of those that a command has no use for, nor of a seed, which is a flag of
// every command.
func optionFlags(flags *pflag.FlagSet, without []string, structs ...any) *options {
	o := &options{recipe.Of(structs...).Without(without...), structs}
	o.Bind(flags, "seed")
	return o
}

// resolve writes the flags given over what the structs hold now, and checks that.
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
