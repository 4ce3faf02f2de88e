% Reads all variables of a file with the netcdf package; prints a line each: path, axis, values.
pkg load netcdf
1;

function tell(name, axis, values)
  if ischar(values)
    words = strtrim(strrep(cellstr(values.'), char(0), ""));
  else
    words = arrayfun(@(v) sprintf("%.17g", v), double(values(:)), "UniformOutput", false);
  end
  printf("%s\t%s\t%s\n", name, axis, strjoin(words(:).', "|"));
end

function visit(path, group, above, known)
  names = {};
  if isfield(group, "Variables") && ! isempty(group.Variables)
    names = {group.Variables.Name};
  end
  for i = 1:numel(names)
    known.(["v_" strrep(strrep(names{i}, ".", "_"), "-", "_")]) = [above "/" names{i}];
  end
  for i = 1:numel(names)
    variable = group.Variables(i);
    whole = [above "/" names{i}];
    tell(whole(2:end), "", ncread(path, whole));
    for attribute = variable.Attributes
      ncreadatt(path, whole, attribute.Name);
    end
    for axis = variable.Dimensions
      key = ["v_" strrep(strrep(axis.Name, ".", "_"), "-", "_")];
      if isfield(known, key)
        tell(whole(2:end), axis.Name, ncread(path, known.(key)));
      end
    end
  end
  if ! isfield(group, "Groups")
    return;
  end
  for child = group.Groups
    visit(path, child, [above "/" child.Name], known);
  end
end

path = argv(){1};
visit(path, ncinfo(path), "", struct());
