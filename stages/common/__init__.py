"""What every stage needs: parameters, paths, tables, encoders, errors."""
