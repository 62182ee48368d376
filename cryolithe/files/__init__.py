"""What every module needs of files, whatever is in them: their names, their hashes, tables in YAML."""
