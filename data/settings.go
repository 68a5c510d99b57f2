package data

// Setting makes an error about settings, of another package, an [InputError].
func Setting(err error) error {
	if err == nil {
		return nil
	}
	return Errorf("%w", err)
}
