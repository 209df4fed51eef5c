import { Button } from '@patternfly/react-core';
import { useState, type ReactNode } from 'react';
import { useText } from '../i18n/context';

export interface Column<Row> {
  label: string;
  cell: (row: Row) => ReactNode;
  narrow?: boolean; // as wide as what is in it
}

interface Props<Row> {
  label: string;
  columns: readonly Column<Row>[];
  rows: readonly Row[];
  keyOf: (row: Row) => string;
  size?: number; // rows of a page
  none?: string; // what is said where there is no row
}

// Table shows rows in pages, so that thousands cost no more than one page. On a
// phone each row is a card with the names of the columns in it.
export function Table<Row>({ label, columns, rows, keyOf, size = 25, none }: Props<Row>) {
  const { t } = useText();
  const [at, setAt] = useState(0);
  const pages = Math.max(1, Math.ceil(rows.length / size));
  const page = Math.min(at, pages - 1);
  if (rows.length === 0) return <p className="quiet">{none ?? t('common.none')}</p>;
  return (
    <>
      <table className="table" aria-label={label}>
        <thead>
          <tr>
            {columns.map((c) => (
              <th key={c.label} scope="col" className={c.narrow ? 'narrow' : undefined}>
                {c.label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.slice(page * size, (page + 1) * size).map((row) => (
            <tr key={keyOf(row)} data-key={keyOf(row)}>
              {columns.map((c) => (
                <td key={c.label} data-label={c.label} className={c.narrow ? 'narrow' : undefined}>
                  {c.cell(row)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      {pages > 1 && (
        <nav className="pager" aria-label={label}>
          <Button
            variant="secondary"
            size="sm"
            isDisabled={page === 0}
            onClick={() => setAt(page - 1)}
            aria-label={t('common.previous')}
          >
            ‹
          </Button>
          <span aria-live="polite">{t('common.page', { page: page + 1, pages, count: rows.length })}</span>
          <Button
            variant="secondary"
            size="sm"
            isDisabled={page === pages - 1}
            onClick={() => setAt(page + 1)}
            aria-label={t('common.next')}
          >
            ›
          </Button>
        </nav>
      )}
    </>
  );
}
