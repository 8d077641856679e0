"""The boundary to RELION: command line, exit markers, results of a job directory."""
