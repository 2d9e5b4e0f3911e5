"""The HTML page for reviewing a run (`segment --report`); `review.html` is its template.

page        rows spooled during the run, and the page written at its end
markup      rows, columns and texts as HTML
thumbnails  small images with their outlines
"""
