# Reads all variables of a file with ncdf4; prints a line each: path, axis or nothing, values.
library(ncdf4)
path <- commandArgs(trailingOnly = TRUE)[1]
file <- nc_open(path)
tell <- function(name, axis, values) {
  words <- if (is.character(values)) values else sprintf("%.17g", as.vector(values))
  cat(name, axis, paste(words, collapse = "|"), sep = "\t")
  cat("\n")
}
last <- function(name) sub(".*/", "", name)
for (variable in file$var) {
  tell(variable$name, "", ncvar_get(file, variable$name, collapse_degen = FALSE))
  for (axis in variable$dim) {
    if (axis$create_dimvar && axis$dimvarid$id != -1)
      tell(variable$name, last(axis$name), axis$vals)
  }
}
for (axis in file$dim) {
  if (axis$create_dimvar && axis$dimvarid$id != -1) {
    values <- ncvar_get(file, axis$name)
    tell(axis$name, "", values)
    tell(axis$name, last(axis$name), axis$vals)
  }
}
